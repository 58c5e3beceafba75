"""Which crops step N sees: from three integers to pixels, with no state in between."""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from realesr_cli.errors import DatasetError, ImageError, RealesrWarning
from realesr_cli.image.read import read_rgb8
from realesr_cli.train.files import TrainingImage
from realesr_cli.train.settings import DataConfig

Pixels = NDArray[np.uint8]

MIB = 1 << 20

CROPS_PER_REGION = 12
"""About how many crops are cut from a decoded region before another one replaces it."""

MAX_REGIONS = 256
"""Regions in the window, memory permitting."""

ATTEMPTS = 20
"""Images tried instead of one that cannot be decoded."""


def rng_for(seed: int, step: int, stream: int) -> np.random.Generator:
    """Return the random generator of one step of one stream.

    Nothing random needs to be saved to resume a run: the step number is the whole random state of
    the data. Streams are numbered over processes and forward passes of a step.
    """
    return np.random.default_rng((seed, step, stream))


@dataclass(frozen=True)
class Region:
    """A rectangle of an image file, in pixels."""

    path: Path
    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class TrainingCrop:
    """Where one training sample comes from, and its orientation.

    `top` and `left` are pixels of the region's ground truth, multiples of the scale for pairs.
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
    """Crops of one step and stream, and the random generator that the degradation continues with.

    `gt` are the ground truths to degrade, (N, crop, crop, 3) uint8 RGB. `paired_gt` and `paired_lq`
    are those of real pairs, (M, patch * scale, patch * scale, 3) and (M, patch, patch, 3). Each is
    None if there are no such samples; N + M is the batch size.
    """

    gt: Pixels | None
    paired_gt: Pixels | None
    paired_lq: Pixels | None
    rng: np.random.Generator


class Crops:
    """Draws and cuts the crops of any step: a pure function of step and stream, except for speed.

    If all images fit in `data.cache`, each is decoded once and kept. Otherwise a window of decoded
    regions slides over the images: at each step a few regions enter, the oldest leave, and crops
    are cut from those inside, so that an image is decoded about once per twelve crops. Small images
    (prepared sub-images) are decoded when they are drawn.
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
        self.window = window_size(self.images, config, scale)
        self.cache = RegionCache(config.cache * MIB)
        self._cumulative = cumulative_weights(self.images, config)
        self._pool = ThreadPoolExecutor(config.workers, thread_name_prefix="decode")

    def batch(self, step: int, stream: int) -> CropBatch:
        """Return the crops of one step and stream; DatasetError when no image can be decoded."""
        rng = rng_for(self.seed, step, stream)
        crops = [self.draw(rng, step, stream) for _ in range(self.config.batch)]
        cut = list(self._pool.map(lambda item: self._cut(item, step, stream), enumerate(crops)))
        synthetic = [gt for gt, lq in cut if lq is None]
        paired = [(gt, lq) for gt, lq in cut if lq is not None]
        return CropBatch(
            gt=np.stack(synthetic) if synthetic else None,
            paired_gt=np.stack([gt for gt, _ in paired]) if paired else None,
            paired_lq=np.stack([lq for _, lq in paired]) if paired else None,
            rng=rng,
        )

    def close(self) -> None:
        """Stop the decoding threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def draw(self, rng: np.random.Generator, step: int, stream: int) -> TrainingCrop:
        """Choose image, position and orientation; nothing is read."""
        if self.window:
            entering = -(-self.config.batch // CROPS_PER_REGION)
            entry = step * entering + int(rng.integers(self.window))
            # Its own generator: an entry is the same region at every step it is in the window.
            image, region = self._draw_region(np.random.default_rng((self.seed, entry, stream, 1)))
        else:
            image = self._draw_image(rng)
            region = whole_region(image)
        grid = self.scale if image.lq is not None else 1
        side = self._side(image)
        down = max(0, region.height - side) // grid
        right = max(0, region.width - side) // grid
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

    def _side(self, image: TrainingImage) -> int:
        return self.config.crop(self.scale, paired=image.lq is not None)

    def _draw_image(self, rng: np.random.Generator) -> TrainingImage:
        return self.images[int(np.searchsorted(self._cumulative, rng.random(), side="right"))]

    def _draw_region(self, rng: np.random.Generator) -> tuple[TrainingImage, Region]:
        image = self._draw_image(rng)
        side, grid = max(self.config.region, self._side(image)), self.scale
        height, width = min(side, image.height), min(side, image.width)
        height, width = height // grid * grid or height, width // grid * grid or width
        top = int(rng.integers((image.height - height) // grid + 1)) * grid
        left = int(rng.integers((image.width - width) // grid + 1)) * grid
        return image, Region(image.gt, top, left, height, width)

    def _cut(
        self, item: tuple[int, TrainingCrop], step: int, stream: int
    ) -> tuple[Pixels, Pixels | None]:
        """Read the pixels of one crop; of another image where the file is damaged."""
        number, crop = item
        retry = np.random.default_rng((self.seed, step, stream, 2, number))
        for _ in range(ATTEMPTS):
            try:
                return self._read(crop)
            except ImageError as error:
                warnings.warn(f"skipped in training: {error}", RealesrWarning, stacklevel=2)
                crop = self.draw(retry, step, stream)
        raise DatasetError(
            f"{ATTEMPTS} images in a row cannot be decoded, the last one {crop.image.gt}",
            advice="check-dataset",
        )

    def _read(self, crop: TrainingCrop) -> tuple[Pixels, Pixels | None]:
        pixels, side = self.cache.get(crop.region), self._side(crop.image)
        gt = cut_square(pixels, crop.top, crop.left, side, paired=crop.image.lq is not None)
        if crop.image.lq is None:
            return orient(gt, crop), None
        r, s = crop.region, self.scale
        small = Region(crop.image.lq, r.top // s, r.left // s, r.height // s, r.width // s)
        pixels = self.cache.get(small)
        lq = cut_square(pixels, crop.top // s, crop.left // s, side // s, paired=True)
        return orient(gt, crop), orient(lq, crop)


def whole_region(image: TrainingImage) -> Region:
    """Return the region of an image's whole ground truth."""
    return Region(image.gt, 0, 0, image.height, image.width)


def window_size(images: Sequence[TrainingImage], config: DataConfig, scale: int) -> int:
    """Return how many regions slide over the images; 0 where whole images are better.

    They are when all fit in the cache, or when they are no larger than a region anyway.
    """
    budget = config.cache * MIB
    pixels = sum(p.height * p.width for p in images)
    side = max(config.crop(scale, paired=p.lq is not None) for p in images)
    region = max(config.region, side)
    if pixels * 3 <= budget or pixels <= len(images) * region**2:
        return 0
    return max(config.batch, min(MAX_REGIONS, budget // (region**2 * 3)))


def cumulative_weights(images: Sequence[TrainingImage], config: DataConfig) -> np.ndarray:
    """Return the cumulative probability of the images; each folder gets its sampling weight."""
    counts = np.bincount([p.folder for p in images], minlength=len(config.gt))
    weights = np.asarray(config.weights or counts, dtype=np.float64)
    each = np.array([weights[p.folder] / counts[p.folder] for p in images])
    total = np.cumsum(each / each.sum())
    total[-1] = 1.0
    return total


def cut_square(pixels: Pixels, top: int, left: int, side: int, *, paired: bool) -> Pixels:
    """Cut a square of `side` pixels, mirroring what a small image lacks at the right and bottom.

    Pairs are mirrored about the border itself, which keeps the two grids aligned; single images
    about the last pixel, as is common.
    """
    cut = pixels[top : top + side, left : left + side]
    down, right = side - cut.shape[0], side - cut.shape[1]
    if not down and not right:
        return cut
    padding = ((0, down), (0, right), (0, 0))
    return np.pad(cut, padding, mode="symmetric" if paired else "reflect")


def orient(pixels: Pixels, crop: TrainingCrop) -> Pixels:
    """Flip and transpose as the crop says."""
    if crop.flip:
        pixels = pixels[:, ::-1]
    if crop.upside_down:
        pixels = pixels[::-1]
    if crop.transpose:
        pixels = pixels.transpose(1, 0, 2)
    return np.ascontiguousarray(pixels)


class RegionCache:
    """Least-recently-used cache of decoded regions; thread-safe.

    What it holds decides only how long `get` takes, never what it returns.
    """

    def __init__(self, budget: int) -> None:
        """`budget` in bytes."""
        self.budget = budget
        self.decoded = 0
        """Files decoded so far."""
        self._regions: OrderedDict[Region, Pixels] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()
        self._busy: dict[Region, threading.Lock] = {}

    def get(self, region: Region) -> Pixels:
        """Return the pixels (height, width, 3) of a region; raises the file's ImageError."""
        with self._lock:
            found = self._find(region)
            if found is not None:
                return found
            busy = self._busy.setdefault(region, threading.Lock())
        # One thread decodes; others that want the same region wait for it.
        with busy:
            with self._lock:
                found = self._find(region)
                if found is not None:
                    return found
            image = read_rgb8(region.path)
            bottom, right = region.top + region.height, region.left + region.width
            cut = image[region.top : bottom, region.left : right]
            pixels = image if cut.shape == image.shape else cut.copy()
            with self._lock:
                self.decoded += 1
                self._store(region, pixels)
                self._busy.pop(region, None)
            return pixels

    def _find(self, region: Region) -> Pixels | None:
        found = self._regions.get(region)
        if found is not None:
            self._regions.move_to_end(region)
        return found

    def _store(self, region: Region, pixels: Pixels) -> None:
        if region in self._regions:
            return
        self._regions[region] = pixels
        self._size += pixels.nbytes
        while self._size > self.budget and len(self._regions) > 1:
            _, old = self._regions.popitem(last=False)
            self._size -= old.nbytes
