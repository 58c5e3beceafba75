"""Batches are a pure function of seed, step and stream, whatever is cached or prepared ahead."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from realesr_cli.errors import DatasetError, RealesrWarning
from realesr_cli.image.read import read_rgb8
from realesr_cli.train.cropping import (
    Crops,
    Region,
    RegionCache,
    TrainingCrop,
    cumulative_weights,
    cut_square,
    orient,
    rng_for,
    whole_region,
    window_size,
)
from realesr_cli.train.data import Prefetcher
from realesr_cli.train.files import TrainingImage
from realesr_cli.train.settings import DataConfig


def unique(height: int, width: int, mark: int = 0) -> np.ndarray:
    """An image whose pixels tell where they lie: row, column, mark."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.full_like(rows, mark)], axis=2).astype(np.uint8)


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def make(root: Path, count: int = 3, height: int = 60, width: int = 80) -> list[TrainingImage]:
    return [
        TrainingImage(save(root / f"{i}.png", unique(height, width, i)), height, width)
        for i in range(count)
    ]


def crops(images: list[TrainingImage], config: DataConfig | None = None, *, seed: int = 5) -> Crops:
    return Crops(images, config or DataConfig(patch=4, batch=4), scale=4, seed=seed)


def test_the_generator_depends_on_all_three_numbers() -> None:
    keys = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))
    drawn = {tuple(rng_for(*key).integers(0, 2**62, 2)) for key in keys}
    assert len(drawn) == 4
    assert rng_for(1, 2, 3).random() == np.random.default_rng((1, 2, 3)).random()


def test_a_step_shows_the_same_whenever_and_wherever_it_is_asked_for(tmp_path: Path) -> None:
    images = make(tmp_path)
    one, other = crops(images), crops(images)
    for step in range(5):
        one.batch(step, 0)
    a, b = one.batch(7, 1), other.batch(7, 1)
    assert np.array_equal(a.gt, b.gt)
    assert a.rng.random() == b.rng.random()
    assert not np.array_equal(one.batch(7, 0).gt, a.gt)
    assert not np.array_equal(one.batch(8, 1).gt, a.gt)
    assert not np.array_equal(crops(images, seed=6).batch(7, 1).gt, a.gt)
    one.close()
    other.close()


def test_crops_are_pieces_of_the_images_and_reach_all_of_them(tmp_path: Path) -> None:
    source = crops(make(tmp_path), DataConfig(patch=4, batch=4, margin=1.25, flip=False))
    assert source.batch(0, 0).gt.shape[1] == 20
    tops, lefts, marks = set(), set(), set()
    for step in range(150):
        for crop in source.batch(step, 0).gt:
            top, left, mark = (int(v) for v in crop[0, 0])
            assert np.array_equal(crop, unique(60, 80, mark)[top : top + 20, left : left + 20])
            tops.add(top)
            lefts.add(left)
            marks.add(mark)
    assert marks == {0, 1, 2}
    assert tops == set(range(41))
    assert {0, 60} <= lefts <= set(range(61))


def test_flips_and_rotations_make_all_eight_orientations(tmp_path: Path) -> None:
    images = make(tmp_path, 1, 16, 16)
    seen = {}
    for flip, rotate in ((True, True), (True, False), (False, False)):
        source = crops(images, DataConfig(patch=4, batch=8, margin=1, flip=flip, rotate=rotate))
        shown = {crop.tobytes() for step in range(12) for crop in source.batch(step, 0).gt}
        seen[flip, rotate] = len(shown)
    assert seen == {(True, True): 8, (True, False): 2, (False, False): 1}


def test_small_images_are_mirrored_to_size(tmp_path: Path) -> None:
    source = crops(make(tmp_path, 1, 10, 7), DataConfig(patch=4, batch=1, margin=1, flip=False))
    crop = source.batch(0, 0).gt[0]
    assert crop.shape == (16, 16, 3)
    assert crop[:, 0, 0].tolist() == [*range(10), 8, 7, 6, 5, 4, 3]
    assert crop[0, :, 1].tolist() == [0, 1, 2, 3, 4, 5, 6, 5, 4, 3, 2, 1, 0, 1, 2, 3]
    one = cut_square(np.full((1, 1, 3), 9, np.uint8), 0, 0, 4, paired=False)
    assert one.shape == (4, 4, 3)
    assert (one == 9).all()


def paired(root: Path, height: int = 6, width: int = 8) -> TrainingImage:
    small = unique(height, width, 1)
    large = small.repeat(4, 0).repeat(4, 1)
    lq, gt = save(root / "lq.png", small), save(root / "gt.png", large)
    return TrainingImage(gt, height * 4, width * 4, lq)


@pytest.mark.parametrize(("height", "width"), [(6, 8), (3, 2)])
def test_paired_crops_stay_aligned_also_where_mirrored(
    tmp_path: Path, height: int, width: int
) -> None:
    config = DataConfig(patch=4, batch=6, gt=(tmp_path,), lq=(tmp_path,), rotate=True)
    source = crops([paired(tmp_path, height, width)], config)
    for step in range(10):
        batch = source.batch(step, 0)
        assert batch.gt is None
        assert batch.paired_gt is not None
        assert batch.paired_lq is not None
        assert batch.paired_gt.shape == (6, 16, 16, 3)
        assert np.array_equal(batch.paired_gt, batch.paired_lq.repeat(4, 1).repeat(4, 2))


def test_few_or_small_images_need_no_window() -> None:
    large = [TrainingImage(Path(str(i)), 4000, 6000) for i in range(100)]
    small = [TrainingImage(Path(str(i)), 480, 480) for i in range(5_000)]
    config = DataConfig(cache=2048, region=1024)
    assert window_size(large[:20], config, 4) == 0
    assert window_size(small, config, 4) == 0
    assert window_size(large, config, 4) == 256
    assert window_size(large, DataConfig(cache=300, region=1024), 4) == 100
    assert window_size(large, DataConfig(cache=16, region=1024, batch=12), 4) == 12


def windowed(images: list[TrainingImage], *, cache: int = 16) -> Crops:
    source = crops(images, DataConfig(patch=4, batch=4, margin=1, region=64, cache=cache))
    source.window = 8
    return source


def test_a_window_of_regions_slides_over_large_images(tmp_path: Path) -> None:
    images = make(tmp_path, 4, 200, 220)
    source = windowed(images)
    regions = [
        {source.draw(rng_for(1, step, i), step, 0).region for i in range(200)} for step in range(40)
    ]
    assert all(len(seen) <= 8 for seen in regions)
    assert len(regions[0] & regions[1]) >= 6
    assert not regions[0] & regions[20]
    assert {r.path for seen in regions for r in seen} == {p.gt for p in images}
    assert all((r.height, r.width) == (64, 64) for seen in regions for r in seen)


def test_a_window_decodes_far_fewer_images_than_crops(tmp_path: Path) -> None:
    source = windowed(make(tmp_path, 4, 200, 220))
    for step in range(60):
        source.batch(step, 0)
    # 240 crops; one region enters at each step.
    assert source.cache.decoded <= 70


def test_windows_too_are_a_function_of_the_step_alone(tmp_path: Path) -> None:
    images = make(tmp_path, 4, 200, 220)
    fresh, used = windowed(images), windowed(images)
    for step in range(30):
        used.batch(step, 0)
    assert np.array_equal(fresh.batch(30, 0).gt, used.batch(30, 0).gt)


def test_folders_are_drawn_by_weight() -> None:
    images = [TrainingImage(Path("a"), 9, 9, folder=0)] * 3 + [
        TrainingImage(Path("b"), 9, 9, folder=1)
    ]
    plain = DataConfig(gt=(Path("a"), Path("b")))
    weighted = DataConfig(gt=(Path("a"), Path("b")), weights=(1.0, 3.0))
    assert np.diff(cumulative_weights(images, plain), prepend=0).tolist() == [0.25] * 4
    assert np.diff(cumulative_weights(images, weighted), prepend=0)[-1] == pytest.approx(0.75)


def test_a_damaged_file_is_named_and_another_taken_in_its_place(tmp_path: Path) -> None:
    images = make(tmp_path)
    data = images[1].gt.read_bytes()
    images[1].gt.write_bytes(data[: len(data) // 2])
    source = crops(images, DataConfig(patch=4, batch=12, margin=1, flip=False))
    with pytest.warns(RealesrWarning, match=r"skipped in training: .*1\.png"):
        batch = source.batch(0, 0)
    assert {int(crop[0, 0, 2]) for crop in batch.gt} == {0, 2}
    with pytest.warns(RealesrWarning):
        assert np.array_equal(crops(images, source.config).batch(0, 0).gt, batch.gt)


def test_nothing_but_damaged_files_ends_the_run(tmp_path: Path) -> None:
    images = make(tmp_path, 1)
    images[0].gt.write_bytes(b"nothing")
    with (
        pytest.warns(RealesrWarning),
        pytest.raises(DatasetError, match="in a row cannot be decoded"),
    ):
        crops(images).batch(0, 0)


def test_no_images_are_refused() -> None:
    with pytest.raises(DatasetError, match="no training images are left"):
        crops([])


def test_the_cache_keeps_to_its_budget_and_returns_the_same_anyway(tmp_path: Path) -> None:
    images = make(tmp_path, 3, 40, 40)
    cache = RegionCache(2 * 40 * 40 * 3)
    for _ in range(2):
        for img in images:
            assert np.array_equal(cache.get(whole_region(img)), read_rgb8(img.gt))
    assert cache.decoded == 6
    part = cache.get(Region(images[0].gt, 4, 5, 10, 12))
    assert np.array_equal(part, read_rgb8(images[0].gt)[4:14, 5:17])
    assert part.base is None
    roomy = RegionCache(10**6)
    for img in images * 2:
        roomy.get(whole_region(img))
    assert roomy.decoded == 3


def test_turns_are_applied_in_order() -> None:
    pixels = unique(2, 2)
    region = Region(Path("a"), 0, 0, 2, 2)
    turns = {"flip": True, "upside_down": False, "transpose": True}
    crop = TrainingCrop(TrainingImage(Path("a"), 2, 2), region, 0, 0, **turns)
    assert orient(pixels, crop)[..., :2].tolist() == [[[0, 1], [1, 1]], [[0, 0], [1, 0]]]


@pytest.mark.parametrize("ahead", [0, 3])
def test_preparing_ahead_changes_nothing(ahead: int) -> None:
    keys = [(2, 0), (2, 1), (3, 0), (3, 1), (4, 0), (4, 1)]
    with Prefetcher(lambda a, b: 10 * a + b, iter(keys), ahead) as prefetcher:
        assert [prefetcher.take(*key) for key in keys] == [20, 21, 30, 31, 40, 41]


def test_an_error_in_the_background_is_raised_where_the_batch_is_taken() -> None:
    def make(step: int, stream: int) -> int:
        if step == 1:
            raise DatasetError("damaged")
        return step

    with Prefetcher(make, ((step, 0) for step in range(9)), 2) as prefetcher:
        assert prefetcher.take(0, 0) == 0
        with pytest.raises(DatasetError, match="damaged"):
            prefetcher.take(1, 0)


def test_batches_must_be_taken_in_order() -> None:
    with (
        Prefetcher(lambda a, b: a, ((step, 0) for step in range(9)), 2) as prefetcher,
        pytest.raises(RuntimeError, match="requested"),
    ):
        prefetcher.take(5, 0)
