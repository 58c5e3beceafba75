"""What step N sees: from three integers to a batch of crops, with nothing to remember between."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from realesr_cli.errors import DatasetError, ImageError, RealesrWarning
from realesr_cli.train.config import DataConfig
from realesr_cli.train.files import TrainingImage
from realesr_cli.train.region_cache import Pixels, Region, RegionCache

MIB = 1 << 20

REUSE = 12
"""About how many crops are cut of a decoded region before it gives way to another."""

MOST_REGIONS = 256
"""Regions in the window, memory permitting."""

ATTEMPTS = 20
"""Images tried in place of one that cannot be decoded."""


def rng_for(seed: int, step: int, rank: int) -> np.random.Generator:
    """The generator of all chance of one step of one stream.

    Nothing random need be saved to resume a run: the step number is the data's whole state. `rank`
    numbers the streams: process times passes per step, plus the pass.
    """
    return np.random.default_rng((seed, step, rank))


@dataclass(frozen=True)
class TrainingCrop:
    """Where one training sample comes from, and how it is turned.

    `top` and `left` count pixels of the region's ground truth, multiples of the scale for pairs.
    """

    image: TrainingImage
    region: Region
    top: int
    left: int
    flip: bool
    upside_down: bool
    transpose: bool


@dataclass(frozen=True)
class CropBatch:
    """Crops of one step and stream, and the generator that goes on with the degradation.

    `gt` is (B, crop, crop, 3) uint8 RGB; `lq` (B, crop / scale, crop / scale, 3) for pairs or None.
    """

    gt: Pixels
    lq: Pixels | None
    rng: np.random.Generator


class Crops:
    """Draws and cuts the crops of any step; a pure function of step and stream but for speed.

    Images that fit in `data.cache` altogether are decoded once and kept whole. Of more than
    that, a window of regions slides over the images: at each step a few regions enter, the
    oldest leave, and crops are cut of those within, so that an image is decoded about once in
    twelve crops. Small images (prepared sub-images) are read as they come.
    """

    def __init__(
        self, images: Sequence[TrainingImage], config: DataConfig, *, scale: int, seed: int
    ) -> None:
        if not images:
            raise DatasetError("no training images are left after the validation split")
        self.images = tuple(images)
        self.config = config
        self.scale = scale
        self.seed = seed
        self.side = config.crop(scale)
        self.window = window_size(self.images, config, self.side)
        self.cache = RegionCache(config.cache * MIB)
        self._chances = folder_chances(self.images, config)
        self._pool = ThreadPoolExecutor(config.workers, thread_name_prefix="decode")

    def batch(self, step: int, stream: int) -> CropBatch:
        """The crops of one step and stream; DatasetError when hardly an image can be decoded."""
        rng = rng_for(self.seed, step, stream)
        crops = [self.draw(rng, step, stream) for _ in range(self.config.batch)]
        cut = list(self._pool.map(lambda item: self._cut(item, step, stream), enumerate(crops)))
        lqs = [lq for _, lq in cut if lq is not None]
        return CropBatch(np.stack([gt for gt, _ in cut]), np.stack(lqs) if lqs else None, rng)

    def close(self) -> None:
        """Stop the decoding threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def draw(self, rng: np.random.Generator, step: int, stream: int) -> TrainingCrop:
        """Choose image, position and orientation; only numbers are drawn, nothing is read."""
        if self.window:
            entering = -(-self.config.batch // REUSE)
            entry = step * entering + int(rng.integers(self.window))
            # Its own generator: an entry is the same region at every step it is in the window.
            image, region = self._region(np.random.default_rng((self.seed, entry, stream, 1)))
        else:
            image = self._image(rng)
            region = whole(image)
        grid = self.scale if image.lq is not None else 1
        down = max(0, region.height - self.side) // grid
        right = max(0, region.width - self.side) // grid
        top, left = int(rng.integers(down + 1)) * grid, int(rng.integers(right + 1)) * grid
        turns = rng.random(3) < 0.5
        rotate = self.config.rotate
        return TrainingCrop(
            image,
            region,
            top,
            left,
            flip=bool(turns[0]) and self.config.flip,
            upside_down=bool(turns[1]) and rotate,
            transpose=bool(turns[2]) and rotate,
        )

    def _image(self, rng: np.random.Generator) -> TrainingImage:
        return self.images[int(np.searchsorted(self._chances, rng.random(), side="right"))]

    def _region(self, rng: np.random.Generator) -> tuple[TrainingImage, Region]:
        image = self._image(rng)
        side, grid = max(self.config.region, self.side), self.scale
        height, width = min(side, image.height), min(side, image.width)
        height, width = height // grid * grid or height, width // grid * grid or width
        top = int(rng.integers((image.height - height) // grid + 1)) * grid
        left = int(rng.integers((image.width - width) // grid + 1)) * grid
        return image, Region(image.gt, top, left, height, width)

    def _cut(
        self, item: tuple[int, TrainingCrop], step: int, stream: int
    ) -> tuple[Pixels, Pixels | None]:
        """The pixels of one crop; another image's where the file turns out to be damaged."""
        number, crop = item
        again = np.random.default_rng((self.seed, step, stream, 2, number))
        for _ in range(ATTEMPTS):
            try:
                return self._read(crop)
            except ImageError as error:
                warnings.warn(f"left out of training: {error}", RealesrWarning, stacklevel=2)
                crop = self.draw(again, step, stream)
        raise DatasetError(
            f"{ATTEMPTS} images in a row cannot be decoded, the last {crop.image.gt}; "
            "`realesr dataset check` lists what is wrong"
        )

    def _read(self, crop: TrainingCrop) -> tuple[Pixels, Pixels | None]:
        pixels = self.cache.get(crop.region)
        gt = cut_square(pixels, crop.top, crop.left, self.side, paired=crop.image.lq is not None)
        if crop.image.lq is None:
            return turn(gt, crop), None
        r, s = crop.region, self.scale
        small = Region(crop.image.lq, r.top // s, r.left // s, r.height // s, r.width // s)
        pixels = self.cache.get(small)
        lq = cut_square(pixels, crop.top // s, crop.left // s, self.side // s, paired=True)
        return turn(gt, crop), turn(lq, crop)


def whole(image: TrainingImage) -> Region:
    """All of an image's ground truth."""
    return Region(image.gt, 0, 0, image.height, image.width)


def window_size(images: Sequence[TrainingImage], config: DataConfig, side: int) -> int:
    """How many regions to slide over the images; 0 where whole images serve better.

    They do when all fit in the cache, or when they are no larger than a region anyway.
    """
    budget = config.cache * MIB
    pixels = sum(p.height * p.width for p in images)
    region = max(config.region, side)
    if pixels * 3 <= budget or pixels <= len(images) * region**2:
        return 0
    return max(config.batch, min(MOST_REGIONS, budget // (region**2 * 3)))


def folder_chances(images: Sequence[TrainingImage], config: DataConfig) -> np.ndarray:
    """Cumulative chance of each image, so that a folder is drawn as often as its weight says."""
    counts = np.bincount([p.folder for p in images], minlength=len(config.gt))
    weights = np.asarray(config.weights or counts, dtype=np.float64)
    each = np.array([weights[p.folder] / counts[p.folder] for p in images])
    total = np.cumsum(each / each.sum())
    total[-1] = 1.0
    return total


def cut_square(pixels: Pixels, top: int, left: int, side: int, *, paired: bool) -> Pixels:
    """A square of `side` pixels; what a small image lacks at the right and bottom is mirrored.

    Pairs are mirrored about the border itself, which keeps the two grids aligned; single images
    about the last pixel, as is the field's habit.
    """
    cut = pixels[top : top + side, left : left + side]
    down, right = side - cut.shape[0], side - cut.shape[1]
    if not down and not right:
        return cut
    padding = ((0, down), (0, right), (0, 0))
    return np.pad(cut, padding, mode="symmetric" if paired else "reflect")


def turn(pixels: Pixels, crop: TrainingCrop) -> Pixels:
    """Mirror and transpose as the crop says."""
    if crop.flip:
        pixels = pixels[:, ::-1]
    if crop.upside_down:
        pixels = pixels[::-1]
    if crop.transpose:
        pixels = pixels.transpose(1, 0, 2)
    return np.ascontiguousarray(pixels)
