"""Fingerprints of images survive small changes; JPEG blocks are found."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from realesr_cli.dataset import similarity as M


def photo(seed: int, height: int = 200, width: int = 260) -> np.ndarray:
    """Something with large and small forms, (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for side, weight in ((4, 90), (12, 50), (40, 25)):
        coarse = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
        layer = np.array(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=float)
        total += weight / 165 * layer
    return total.clip(0, 255).astype(np.uint8)


def compressed(pixels: np.ndarray, quality: int) -> np.ndarray:
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "JPEG", quality=quality)
    with Image.open(held) as image:
        return np.array(image)


def apart(first: np.ndarray, second: np.ndarray) -> int:
    hashes = [M.perceptual_hash(M.luma_of(pixels)) for pixels in (first, second)]
    return int((hashes[0] != hashes[1]).sum())


def test_hash_survives_small_changes() -> None:
    original = photo(1)
    smaller = np.array(Image.fromarray(original).resize((97, 61), Image.Resampling.LANCZOS))
    brighter = (original * 0.8 + 30).astype(np.uint8)
    for changed in (smaller, brighter, compressed(original, 20)):
        assert apart(original, changed) <= 4


def test_hashes_of_different_images_differ() -> None:
    assert min(apart(photo(a), photo(b)) for a in range(4) for b in range(4, 8)) > 12


def test_shrink_is_the_mean_over_areas() -> None:
    luma = np.arange(32 * 48, dtype=np.float32).reshape(32, 48)
    expected = luma.reshape(8, 4, 8, 6).mean((1, 3))
    np.testing.assert_allclose(M.shrink(luma, 8), expected, rtol=1e-6)
    assert M.shrink(luma[:3, :5], 8).shape == (8, 8)
    assert M.shrink(luma[:1, :1], 8).tolist() == [[0.0] * 8] * 8


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_luma_of_every_depth(kind: type) -> None:
    white = 1 if kind is np.float32 else np.iinfo(kind).max
    for channels in (1, 3):
        pixels = np.full((4, 4, channels), white, dtype=kind)
        np.testing.assert_allclose(M.luma_of(pixels), 255, rtol=1e-5)


def test_correlation() -> None:
    thumb = np.random.default_rng(0).random((16, 16)).astype(np.float32) * 255
    flat = np.full((16, 16), 80, dtype=np.float32)
    assert M.correlation(thumb, thumb * 0.5 + 20) == pytest.approx(1)
    assert M.correlation(thumb, -thumb) == pytest.approx(-1)
    assert M.correlation(flat, flat + 1) == 1
    assert M.correlation(flat, flat + 50) == 0


def by_plain_search(
    images: list[M.Fingerprint], others: list[M.Fingerprint] | None, distance: int
) -> list[tuple[int, int]]:
    found = []
    for i, one in enumerate(images):
        for j, other in enumerate(images[:i] if others is None else others):
            near = (one.hash != other.hash).sum() <= distance
            if near and M.correlation(one.thumb, other.thumb) > M.SAME_CORRELATION:
                found.append((i, j))
                break
    return found


def test_first_matches_are_those_of_a_plain_search(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    thumbs = [rng.random((16, 16)).astype(np.float32) * 255 for _ in range(30)]
    first = [M.Fingerprint(rng.random(64) < 0.5, thumb) for thumb in thumbs]
    first += [
        M.Fingerprint(one.hash ^ (np.arange(64) < flips), one.thumb * (1 if flips % 2 else -1))
        for flips, one in enumerate(first[:10])
    ]
    for pairs in (2**24, 100):  # The second in several blocks.
        monkeypatch.setattr(M, "_BLOCK_PAIRS", pairs)
        found = M.first_matches(first, hash_distance=4)
        assert found == by_plain_search(first, None, 4) == [(31, 1), (33, 3)]
        across = M.first_matches(first[:30], first[30:], hash_distance=4)
        assert across == by_plain_search(first[:30], first[30:], 4) == [(1, 1), (3, 3)]
    assert M.first_matches([], hash_distance=4) == []
    assert M.first_matches(first, [], hash_distance=4) == []


def test_many_equal_images_take_no_more_time_or_memory_than_others() -> None:
    flat = M.fingerprint(np.full((20, 20), 80, dtype=np.float32))
    found = M.first_matches([flat] * 3000, hash_distance=6)
    assert found == [(i, 0) for i in range(1, 3000)]


def test_blockiness_grows_with_compression() -> None:
    pixels = photo(2, 400, 400)
    grain = np.random.default_rng(5).normal(0, 6, pixels.shape[:2])[..., None]
    pixels = (pixels + grain).clip(0, 255).astype(np.uint8)
    found = [M.blockiness(M.luma_of(pixels))]
    found += [M.blockiness(M.luma_of(compressed(pixels, q))) for q in (60, 30, 10)]
    assert found == sorted(found)
    assert found[0] < 0.5
    assert found[-1] > 1.5


def test_blocks_are_found_wherever_the_grid_starts() -> None:
    luma = M.luma_of(compressed(photo(2, 400, 400), 5))
    whole = M.blockiness(luma)
    assert M.blockiness(luma[3:, 5:]) == pytest.approx(whole, rel=0.1)
    assert M.blockiness(luma[:40]) == 0
