"""Make training files of large images: smaller versions of each, cut into overlapping squares.

The published models were trained on such files: every image also at 0.75, 0.5 and 1/3 of its size
and with a shortest edge of 400 pixels, by Lanczos, and cut into squares of 400 (or 480) pixels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from realesr_cli.atomic import atomic_write_bytes
from realesr_cli.dataset.crops import CropFile, Size, SourceImage, pieces
from realesr_cli.dataset.settings import PrepareSettings
from realesr_cli.errors import (
    ConfigError,
    DatasetError,
    ImageWriteError,
    UnreadableImageError,
    UnsupportedImageError,
)
from realesr_cli.image.folders import ExcludedImage
from realesr_cli.image.formats import WriteSettings
from realesr_cli.image.probe import probe
from realesr_cli.image.read import from_array, read_image
from realesr_cli.image.write import write_image
from realesr_cli.ops.color import luma_studio
from realesr_cli.ops.filters import gaussian_taps, separable_filter
from realesr_cli.ops.resize import resize
from realesr_cli.settings import to_plain

Report = Callable[[int, int], None]

DETAIL_CELL = 4
"""Side in pixels of the cells whose detail is averaged."""

DETAIL_FLOOR = 1 / 255
"""Deviation that counts as no detail: one 8-bit level."""

SETTINGS_FILE = "prepared.json"
"""Written into the folder made, so that one folder never mixes two ways of making it."""


@dataclass(frozen=True)
class Prepared:
    """The outcome: files written, files that were there already, and what was left out."""

    images: int
    written: int
    present: int
    plain: int
    """Squares that had too little detail."""
    left_out: tuple[ExcludedImage, ...]


@dataclass(frozen=True)
class _Made:
    """Of one image."""

    written: int
    present: int
    plain: int


def prepare(
    sources: Sequence[SourceImage],
    out: Path,
    settings: PrepareSettings,
    *,
    overwrite: bool = False,
    report: Report | None = None,
) -> Prepared:
    """Write the files of all images below `out` (pairs: below its folders gt and lq).

    Files land whole, and those that are there already are not made again unless `overwrite`, so
    that a run that was stopped goes on; squares that had too little detail are measured again.
    Raises ConfigError if `out` was made with other settings, and ImageWriteError where a file
    cannot be written.
    """
    _claim(out, settings, overwrite=overwrite)
    made: list[_Made] = []
    left_out: list[ExcludedImage] = []

    def work(source: SourceImage) -> _Made | ExcludedImage:
        return _prepare_one(source, out, settings, overwrite=overwrite)

    with ThreadPoolExecutor(settings.workers) as pool:
        for done, result in enumerate(pool.map(work, sources), 1):
            if isinstance(result, ExcludedImage):
                left_out.append(result)
            else:
                made.append(result)
            if report is not None:
                report(done, len(sources))
    return Prepared(
        images=len(sources),
        written=sum(one.written for one in made),
        present=sum(one.present for one in made),
        plain=sum(one.plain for one in made),
        left_out=tuple(left_out),
    )


def _claim(out: Path, settings: PrepareSettings, *, overwrite: bool) -> None:
    """Note the settings in the folder; ConfigError if they differ from those noted there."""
    # How fast and how small changes nothing of the pixels.
    shown = {**to_plain(settings), "workers": None, "compress_level": None}
    path = out / SETTINGS_FILE
    if path.exists() and not overwrite:
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            before = None
        if before != shown:
            raise ConfigError(
                f"{out} was made with other settings: choose another folder, or --overwrite"
            )
    elif not path.exists() and not overwrite and out.is_dir() and any(out.iterdir()):
        raise ConfigError(f"{out} holds other files: choose another folder, or --overwrite")
    _make_folder(out)
    atomic_write_bytes(path, (json.dumps(shown, indent=1) + "\n").encode())


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageWriteError(f"{path}: cannot be made: {error.strerror or error}") from error


def _prepare_one(
    source: SourceImage, out: Path, settings: PrepareSettings, *, overwrite: bool
) -> _Made | ExcludedImage:
    """What became of an image's files, or why there are none."""
    try:
        header = probe(source.path)
        size = header.height, header.width
        wanted = pieces(source, size, out, settings)
        if not wanted:
            return ExcludedImage(
                source.path, f"{size[1]}x{size[0]} is smaller than {settings.side}"
            )
        missing = [piece for piece in wanted if overwrite or not _done(piece, source, out)]
        plain = _write(missing, source, out, settings) if missing else 0
    except (UnreadableImageError, UnsupportedImageError, DatasetError) as error:
        return ExcludedImage(source.path, str(error).removeprefix(f"{source.path}: "))
    return _Made(len(missing) - plain, len(wanted) - len(missing), plain)


def _partner(piece: CropFile, out: Path) -> Path:
    return out / "lq" / piece.path.relative_to(out / "gt")


def _done(piece: CropFile, source: SourceImage, out: Path) -> bool:
    if source.lq is not None and not _partner(piece, out).exists():
        return False
    return piece.path.exists()


def _write(
    missing: Sequence[CropFile], source: SourceImage, out: Path, settings: PrepareSettings
) -> int:
    """Write those that have detail enough; how many have not."""
    plain = 0
    how = WriteSettings(compress_level=settings.compress_level)
    pixels = read_image(source.path).pixels
    lq = None if source.lq is None else _partner_pixels(source, pixels, settings)
    version, shown = None, pixels
    for piece in missing:
        if piece.version != version:
            version, shown = piece.version, resize_pixels(pixels, piece.version.size)
        square = _cut(shown, piece, settings.side, 1)
        if settings.least_detail and fine_detail(square) < settings.least_detail:
            plain += 1
            continue
        _make_folder(piece.path.parent)
        if lq is not None:
            path = _partner(piece, out)
            _make_folder(path.parent)
            write_image(from_array(_cut(lq, piece, settings.side, settings.scale)), path, how)
        write_image(from_array(square), piece.path, how)
    return plain


def _partner_pixels(
    source: SourceImage, pixels: NDArray[Any], settings: PrepareSettings
) -> NDArray[Any]:
    assert source.lq is not None
    lq = read_image(source.lq).pixels
    if tuple(side * settings.scale for side in lq.shape[:2]) != pixels.shape[:2]:
        raise DatasetError(
            f"{pixels.shape[1]}x{pixels.shape[0]} is not {settings.scale} times "
            f"{lq.shape[1]}x{lq.shape[0]} of {source.lq}"
        )
    return lq


def _cut(pixels: NDArray[Any], piece: CropFile, side: int, scale: int) -> NDArray[Any]:
    if piece.corner is None:
        return pixels
    top, left, side = piece.corner[0] // scale, piece.corner[1] // scale, side // scale
    return pixels[top : top + side, left : left + side]


def fine_detail(pixels: NDArray[Any]) -> float:
    """Measure the fine detail of (H, W, 1 or 3) in 8-bit levels; at least 1.

    The geometric mean, over cells of 4x4 pixels, of the deviation that a Gaussian of one pixel
    removes from the luma. Texture raises it everywhere; single edges, however strong, hardly do.
    """
    white = 1.0 if pixels.dtype.kind == "f" else float(np.iinfo(pixels.dtype).max)
    planes = np.ascontiguousarray(np.moveaxis(pixels, -1, 0)).astype(np.float32) / white
    luma = luma_studio(torch.from_numpy(planes).expand(3, -1, -1)[None])
    residual = luma - separable_filter(luma, gaussian_taps(7, 1.0))
    energy = F.avg_pool2d(residual**2, min(DETAIL_CELL, *pixels.shape[:2]))
    return 255 * math.exp((energy + DETAIL_FLOOR**2).log().mean().item() / 2)


def resize_pixels(pixels: NDArray[Any], size: Size) -> NDArray[Any]:
    """(H, W, C) by antialiased Lanczos to `size` (height, width), in its own depth."""
    if pixels.shape[:2] == size:
        return pixels
    planes = np.ascontiguousarray(np.moveaxis(pixels, -1, 0)).astype(np.float32)
    tensor = resize(torch.from_numpy(planes)[None], size, "lanczos")[0]
    made: NDArray[Any] = np.ascontiguousarray(tensor.permute(1, 2, 0).numpy())
    if pixels.dtype.kind == "f":
        return np.asarray(made.clip(0, 1))
    rounded = np.rint(made.clip(0, np.iinfo(pixels.dtype).max))
    return np.asarray(rounded.astype(pixels.dtype))
