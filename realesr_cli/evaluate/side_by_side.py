"""Photos enlarged by several models and by bicubic, to be looked at side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from realesr_cli.engine.settings import EngineSettings
from realesr_cli.engine.upscaler import Upscaler
from realesr_cli.errors import ConfigError, DatasetError, ImageError
from realesr_cli.evaluate.compare_settings import CompareSettings
from realesr_cli.evaluate.comparison import (
    Comparison,
    ModelSummary,
    Photo,
    PhotoVersion,
    WeightsFile,
    printable,
)
from realesr_cli.evaluate.evaluated_models import EvaluatedModel, Report, common_scale, open_models
from realesr_cli.evaluate.images import Pixels, to_tensor
from realesr_cli.evaluate.scores import Scorer, select_metrics
from realesr_cli.evaluate.sets import Failure
from realesr_cli.evaluate.settings import Channel
from realesr_cli.image.alpha import bleed
from realesr_cli.image.depth import Array, over_white, to_uint8
from realesr_cli.image.read import read_image
from realesr_cli.image.types import Image
from realesr_cli.ops.quantize import to_8bit_levels
from realesr_cli.ops.resize import imresize
from realesr_cli.weights.provenance import merged_license

_WARM_UP = 64
"""Side in pixels of what a model computes before its time is taken."""


@dataclass(frozen=True)
class CompareCallbacks:
    """What is told of the work, its next step and tiles; and `cancel`, asked between tiles."""

    step: Callable[[str], None] = lambda text: None
    tiles: Report = lambda done, total: None
    cancel: Callable[[], bool] = lambda: False


_USUAL, _SILENT = CompareSettings(), CompareCallbacks()


def compare(
    photos: Sequence[str | Path],
    models: Sequence[str | Path | Upscaler | EvaluatedModel],
    *,
    originals: Sequence[str | Path] = (),
    settings: CompareSettings = _USUAL,
    engine: EngineSettings = EngineSettings(),
    hooks: CompareCallbacks = _SILENT,
) -> Comparison:
    """Enlarge photos with every model and with bicubic, and score the results.

    `models` are names, files, runs or networks in use. `originals` holds, in the order of the
    photos, images that the photos are reduced from: PSNR and SSIM are taken against them, NIQE
    where there are none, `scale` pixels left out on each side. A photo or original that cannot be
    used becomes a `Failure`, and the others go on.

    Raises ConfigError for no or doubled models or photos, another number of originals than of
    photos, and models of different scales; what `open_model` raises; Cancelled; and, where no
    photo at all could be used, the reason.
    """
    names = photo_names(photos, originals)
    ready = open_models(models, engine, offline=settings.offline)
    scale = common_scale(ready, None)
    if scale is None:
        raise ConfigError("nothing to compare: name a model")
    done, failures = [], []
    first: ImageError | DatasetError | None = None
    for index, path in enumerate(photos):
        original = Path(originals[index]) if originals else None
        try:
            done.append(_photo((path, names[index]), original, ready, settings, hooks))
        except (ImageError, DatasetError) as error:
            first = first or error
            failures.append(Failure(names[index], str(error)))
    if first is not None and not done:
        if len(failures) == 1:
            raise first
        listed = "".join(f"\n  {failure.error}" for failure in failures)
        raise DatasetError(f"none of the {len(failures)} photos can be compared:{listed}")
    return Comparison(scale, tuple(map(_facts, ready)), tuple(done), tuple(failures))


def bicubic(image: Image, scale: int) -> Image:
    """MATLAB's bicubic enlargement, in 8 bits; color is spread under transparent pixels first."""
    pixels = image.pixels
    if image.alpha is not None:
        pixels = bleed(pixels, image.alpha)
    alpha = None if image.alpha is None else _enlarged(image.alpha[..., None], scale)[..., 0]
    return Image(_enlarged(pixels, scale), alpha, icc=image.icc)


def _enlarged(pixels: Array, scale: int) -> Pixels:
    top = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}.get(pixels.dtype, 1)
    unit = torch.from_numpy(pixels.astype(np.float64) / top).permute(2, 0, 1)
    return to_8bit_levels(imresize(unit[None], scale)[0])


def photo_names(photos: Sequence[str | Path], originals: Sequence[str | Path]) -> list[str]:
    """What the photos are called: their file names, with the folder where those are equal.

    Raises ConfigError for no photo, one given twice, and another number of originals.
    """
    if not photos:
        raise ConfigError("nothing to compare: name a photo")
    if originals and len(originals) != len(photos):
        raise ConfigError(
            f"number of photos: {len(photos)}, of originals: {len(originals)}; give one original "
            "for each photo, in the same order"
        )
    short = [Path(photo).name for photo in photos]
    shown = [
        printable(str(photo) if short.count(name) > 1 else name)
        for photo, name in zip(photos, short, strict=True)
    ]
    for name in shown:
        if shown.count(name) > 1:
            raise ConfigError(f"photo {name} is given twice: leave one out")
    return shown


def _facts(model: EvaluatedModel) -> ModelSummary:
    upscaler = model.upscaler
    policy = upscaler.policy
    described = [source.describe() for source in model.sources]
    return ModelSummary(
        name=printable(model.name),
        network=upscaler.architecture.describe(),
        scale=upscaler.scale,
        license=merged_license([str(plain["license"]) for plain in described]),
        files=tuple(
            WeightsFile(printable(source.path.name), plain["sha256"], source.share)
            for source, plain in zip(model.sources, described, strict=True)
        ),
        device=policy.device,
        precision=policy.precision,
        tile=policy.tile,
        overlap=policy.overlap,
    )


def _photo(
    named: tuple[str | Path, str],
    original: Path | None,
    ready: Sequence[EvaluatedModel],
    settings: CompareSettings,
    hooks: CompareCallbacks,
) -> Photo:
    path, name = named
    scale = ready[0].upscaler.scale
    image = read_image(path, max_pixels=settings.max_pixels)
    truth = None
    if original is not None:
        most = settings.max_pixels * scale**2
        truth = _original(read_image(original, max_pixels=most), original, (name, image), scale)
    made = [
        PhotoVersion("input", "input", _shown(image)),
        PhotoVersion("bicubic", "bicubic", bicubic(image, scale)),
        *(_by_model(one, image, name, hooks) for one in ready),
    ]
    if truth is not None:
        made.append(PhotoVersion("original", "original", truth))
    notes = _notes(image)
    if settings.scores:
        hooks.step(f"{name}, scores")
        made, gaps = _scored(made, truth, settings.channel, scale)
        notes += gaps
        if any(version.image.has_alpha for version in made):
            notes = (*notes, "transparent pixels are scored over white")
    return Photo(name, image.height * scale, image.width * scale, notes, tuple(made))


def _by_model(
    one: EvaluatedModel, image: Image, name: str, hooks: CompareCallbacks
) -> PhotoVersion:
    hooks.step(f"{name}, {printable(one.name)}")
    # The first call of a network prepares things that are not the image's cost.
    one.upscaler(image.with_pixels(image.pixels[:_WARM_UP, :_WARM_UP], None))
    began = time.perf_counter()
    result = one.upscaler(image, progress=hooks.tiles, stop_requested=hooks.cancel)
    return PhotoVersion(printable(one.name), "model", _shown(result), time.perf_counter() - began)


def _original(truth: Image, path: Path, photo: tuple[str, Image], scale: int) -> Image:
    """The original in 8 bits; DatasetError where its size is not that of the results."""
    name, image = photo
    wanted = image.height * scale, image.width * scale
    if (truth.height, truth.width) != wanted:
        raise DatasetError(
            f"{path}: {truth.width}x{truth.height} pixels, but {name} enlarged x{scale} has "
            f"{wanted[1]}x{wanted[0]}: give the original that the photo was reduced from"
        )
    return _shown(truth)


def _shown(image: Image) -> Image:
    """The image in 8 bits with its color profile, and nothing else that its file says."""
    alpha = None if image.alpha is None else to_uint8(image.alpha)
    return Image(to_uint8(image.pixels), alpha, icc=image.icc)


def _notes(image: Image) -> tuple[str, ...]:
    notes = list(image.notes)
    if image.bits > 8:
        notes.append(f"{image.bits} bits a channel, computed as such and shown with 8")
    return tuple(notes)


def _scored(
    versions: Sequence[PhotoVersion], truth: Image | None, channel: Channel, scale: int
) -> tuple[list[PhotoVersion], tuple[str, ...]]:
    """The versions with their scores, and why some have none (the image is too small)."""
    wanted = ("niqe",) if truth is None else ("psnr", "ssim")
    judge = Scorer(select_metrics(wanted, channel, with_gt=truth is not None), crop=scale)
    target = None if truth is None else _opaque(truth)
    scored, gaps = [], []
    for version in versions:
        if version.kind in ("bicubic", "model"):
            values, reasons = judge.scores(_opaque(version.image), target, "", version.name)
            keys = [metric.key for metric in judge.metrics]
            pairs = zip(keys, values, strict=True)
            version = replace(version, scores={k: v for k, v in pairs if v is not None})
            gaps += [f"not scored: {reason}" for reason in reasons.values()]
        scored.append(version)
    return scored, tuple(dict.fromkeys(gaps))


def _opaque(image: Image) -> Tensor:
    pixels = image.pixels if image.alpha is None else over_white(image.pixels, image.alpha)
    return to_tensor(pixels).expand(3, -1, -1)
