"""`Upscaler.stream`: the same bits whether rows come and go in bands or as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from image_samples import LINEAR

from realesr_cli.engine import policy, sweep
from realesr_cli.engine.settings import EngineSettings, UpscaleSettings
from realesr_cli.engine.upscaler import Upscaler
from realesr_cli.errors import CancelledError, OutOfMemoryError
from realesr_cli.image.types import Band, Image, ImageStream
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.nets.rrdbnet import RRDBArchitecture

SETTINGS = {
    "plain": UpscaleSettings(),
    "x2.5": UpscaleSettings(scale=2.5),
    "smaller": UpscaleSettings(scale=0.5),
    "size": UpscaleSettings(width=150, height=71),
    "strength": UpscaleSettings(strength=0.4),
    "color": UpscaleSettings(color_fix=True),
    "back": UpscaleSettings(back_project=3),
    "back x3": UpscaleSettings(scale=3, back_project=2, back_project_kernel="reverse"),
    "tta": UpscaleSettings(tta=True),
    "wrap": UpscaleSettings(pad="wrap"),
}


def build(architecture: Any, **engine: Any) -> Upscaler:
    torch.manual_seed(0)
    net = architecture.build().eval()
    for parameter in net.parameters():
        parameter.data.mul_(0.3)
    return Upscaler(net, EngineSettings("cpu", "fp32", **engine))


@pytest.fixture(scope="module")
def upscalers() -> dict[str, Upscaler]:
    """One whose tiles are exact, and one whose tiles are blended."""
    return {
        "exact": build(CompactArchitecture(2, 2, 8), tile=24),
        "blended": build(RRDBArchitecture(2, 1, 4, 4), tile=36, overlap=8),
    }


def make(dtype: Any, channels: int, alpha: bool, size: tuple[int, int] = (60, 91)) -> Image:
    rng = np.random.default_rng(0)
    scale = 1 if dtype == np.float32 else np.iinfo(dtype).max

    def plane(*shape: int) -> Any:
        small = rng.random((size[0] // 5 + 1, size[1] // 5 + 1, *shape))
        return (small.repeat(5, 0).repeat(5, 1)[: size[0], : size[1]] * scale).astype(dtype)

    return Image(plane(channels), plane() if alpha else None)


def rows_of(image: Image, height: int = 7) -> ImageStream:
    """The same image as a file read row by row."""

    def bands() -> Iterator[Band]:
        for start in range(0, image.height, height):
            part = slice(start, start + height)
            yield image.pixels[part], None if image.alpha is None else image.alpha[part]

    shape = image.height, image.width, image.channels
    return ImageStream(*shape, image.dtype, image.has_alpha, bands, image.about)


def in_one_piece(upscaler: Upscaler, image: Image, settings: UpscaleSettings) -> Any:
    """The result computed into one array by the sweep itself, color only."""
    grid = upscaler._make_grid((image.height, image.width), settings, image.bits)
    post = sweep.PostProcess(
        strength=settings.strength,
        color_fix=settings.color_fix,
        back_project=settings.back_project,
        kernel=settings.kernel,
    )
    bands = sweep.upscale_bands(upscaler._forward(settings), image.pixels, grid, post)
    return np.concatenate(list(bands))


@pytest.mark.parametrize(
    ("kind", "name"),
    [("exact", name) for name in SETTINGS]
    + [("blended", name) for name in ("plain", "x2.5", "strength", "color", "back")],
)
def test_streamed_is_whole_bit_for_bit(upscalers: dict[str, Upscaler], name: str, kind: str):
    upscaler, settings = upscalers[kind], SETTINGS[name]
    image = make(np.uint8, 3, False)
    expected = in_one_piece(upscaler, image, settings)
    streamed = upscaler.stream(rows_of(image), settings)
    assert np.array_equal(streamed.collect().pixels, expected)
    assert np.array_equal(upscaler(image, settings).pixels, expected)
    assert len(list(streamed.bands())) > (1 if expected.shape[0] > 60 else 0)


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_kinds_of_images(upscalers: dict[str, Upscaler], dtype: Any, channels: int, alpha: bool):
    image = make(dtype, channels, alpha, (40, 61))
    for upscaler in upscalers.values():
        whole = upscaler(image, UpscaleSettings(scale=1.7, back_project=1))
        found = upscaler.stream(
            rows_of(image), UpscaleSettings(scale=1.7, back_project=1)
        ).collect()
        assert found.pixels.dtype == dtype
        assert np.array_equal(np.asarray(found), np.asarray(whole))


@pytest.mark.parametrize("way", ["model", "resize", "keep"])
def test_alpha_keeps_up_with_color(upscalers: dict[str, Upscaler], way: Any):
    image = make(np.uint8, 3, True)
    assert image.alpha is not None
    settings = UpscaleSettings(alpha=way, back_project=2)
    counts: list[tuple[int, int]] = []
    stream = upscalers["blended"].stream(
        image, settings, progress=lambda done, total: counts.append((done, total))
    )
    assert all(len(pixels) == len(cover) for pixels, cover in stream.bands() if cover is not None)
    total = counts[0][1]
    assert [done for done, _ in counts] == list(range(1, total + 1))
    opaque = Image(image.pixels, np.full_like(image.alpha, 7))
    found = upscalers["exact"](opaque, settings)
    assert found.alpha is not None
    assert np.all(found.alpha == 7)


def test_a_profile_is_applied_by_rows(upscalers: dict[str, Upscaler]):
    image = make(np.uint8, 3, False)
    image = Image(image.pixels, icc=LINEAR)
    whole = upscalers["exact"](image)
    assert np.array_equal(upscalers["exact"].stream(rows_of(image)).collect().pixels, whole.pixels)
    assert not np.array_equal(whole.pixels, upscalers["exact"](Image(image.pixels)).pixels)


def test_landscape_is_swept_by_rows(upscalers: dict[str, Upscaler]):
    image = make(np.uint8, 3, False, (80, 400))
    computed: list[tuple[int, ...]] = []
    heights = []
    stream = upscalers["exact"].stream(image, progress=lambda *state: computed.append(state))
    for pixels, _ in stream.bands():
        heights.append((len(computed), len(pixels)))
        assert pixels.shape[1] == 800
    # The first rows are finished when a quarter of the tiles are.
    assert heights[0][0] <= computed[-1][1] // 3
    assert sum(height for _, height in heights) == 160


def test_less_memory_means_lower_tiles_and_the_same_image(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(policy, "memory_available", lambda: 2**34)
    architecture = CompactArchitecture(2, 2, 8)
    plenty, little = build(architecture), build(architecture, memory=2**28)
    assert plenty.memory == 2**34
    assert little.memory == 2**28  # the least, since torch alone takes more
    wide = (2_000, 120_000)
    grids = [one._make_grid(wide, UpscaleSettings(), 8) for one in (plenty, little)]
    heights = [grid.rows.tile for grid in grids]
    assert heights[1] < heights[0]
    line = heights[1] * 2 * wide[1] * 2 * 4
    assert line <= little.memory / 4
    blended = build(RRDBArchitecture(2, 1, 8, 8), overlap=16, memory=2**28)
    assert blended._make_grid(wide, UpscaleSettings(), 8).rows.tile <= heights[1]
    image = make(np.uint8, 3, False, (700, 300))
    little.memory = 2**21
    assert little._make_grid((700, 300), UpscaleSettings(), 8).rows.tile < 700
    difference = plenty(image).pixels.astype(int) - little.stream(rows_of(image)).collect().pixels
    assert np.abs(difference).max() <= 1


def test_what_does_not_fit_is_refused_unless_it_is_streamed():
    upscaler = build(CompactArchitecture(2, 2, 8), tile=24)
    upscaler.memory = 10_000
    image = make(np.uint8, 3, False)
    with pytest.raises(OutOfMemoryError, match="182x120"):
        upscaler(image)
    assert sum(len(pixels) for pixels, _ in upscaler.stream(image).bands()) == 120


def test_a_stream_can_be_stopped_between_tiles(upscalers: dict[str, Upscaler]):
    seen: list[int] = []
    stream = upscalers["exact"].stream(
        make(np.uint8, 3, False),
        progress=lambda done, _: seen.append(done),
        stop_requested=lambda: len(seen) >= 5,
    )
    with pytest.raises(CancelledError):
        list(stream.bands())
    assert len(seen) == 5
