"""`compare`: upscale photos with several models and bicubic, to look at them side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from realesr_cli.engine.settings import EngineSettings
from realesr_cli.engine.upscaler import Upscaler
from realesr_cli.errors import ConfigError, DatasetError, ImageError
from realesr_cli.evaluate.comparison import (
    Comparison,
    ModelSummary,
    Photo,
    PhotoVersion,
    WeightsFile,
    printable,
)
from realesr_cli.evaluate.evaluated_models import EvaluatedModel, common_scale, open_models
from realesr_cli.evaluate.images import resize_bicubic
from realesr_cli.evaluate.scores import Scorer, select_metrics
from realesr_cli.evaluate.sets import Failure
from realesr_cli.evaluate.settings import Channel, CompareSettings
from realesr_cli.image.pixels import bleed, over_white, to_uint8
from realesr_cli.image.read import read_image
from realesr_cli.image.types import Image
from realesr_cli.ops.quantize import from_8bit_levels
from realesr_cli.progress import Progress, StopRequested, never, no_progress
from realesr_cli.weights.provenance import merge_licenses

_WARM_UP = 64
"""Side in pixels of the image that a model upscales before it is timed."""


def _no_step(text: str) -> None:
    """Ignore the name of a step."""


@dataclass(frozen=True)
class CompareCallbacks:
    """What `compare` calls while it works: at each step, for each tile, and to ask for a stop."""

    step: Callable[[str], None] = _no_step
    progress: Progress = no_progress
    stop_requested: StopRequested = never


_DEFAULTS, _SILENT = CompareSettings(), CompareCallbacks()


def compare(
    photos: Sequence[str | Path],
    models: Sequence[str | Path | Upscaler | EvaluatedModel],
    *,
    originals: Sequence[str | Path] = (),
    settings: CompareSettings = _DEFAULTS,
    engine: EngineSettings = EngineSettings(),
    callbacks: CompareCallbacks = _SILENT,
) -> Comparison:
    """Upscale photos with every model and with bicubic, and score the results.

    `models` are names, files, run folders or open networks. `originals` are, in the order of the
    photos, the images that the photos were downscaled from: PSNR and SSIM compare with them, and
    without them NIQE is computed, with a border of `scale` pixels excluded. A photo or original
    that cannot be used becomes a `Failure`, and the others go on.

    Raises ConfigError for missing or repeated models or photos, another number of originals than of
    photos, and models of different scales; what `open_model` raises; CancelledError; and, if no
    photo can be used, the reason.
    """
    names = photo_names(photos, originals)
    opened = open_models(models, engine, offline=settings.offline)
    scale = common_scale(opened, None)
    if scale is None:
        raise ConfigError("nothing to compare: expected at least one model")
    done, failures = [], []
    errors: list[ImageError | DatasetError] = []
    for index, path in enumerate(photos):
        original = Path(originals[index]) if originals else None
        try:
            done.append(_compare_photo((path, names[index]), original, opened, settings, callbacks))
        except (ImageError, DatasetError) as error:
            errors.append(error)
            failures.append(Failure(names[index], str(error)))
    if errors and not done:
        if len(errors) == 1:
            raise errors[0]
        listed = "".join(f"\n  {error}" for error in errors)
        raise DatasetError(f"none of the {len(errors)} photos can be compared:{listed}")
    return Comparison(scale, tuple(map(_summarize, opened)), tuple(done), tuple(failures))


def upscale_bicubic(image: Image, scale: int) -> Image:
    """Upscale with MATLAB's bicubic to 8 bits; color is spread under transparent pixels first."""
    pixels, alpha = image.pixels, None
    if image.alpha is not None:
        pixels = bleed(pixels, image.alpha)
        alpha = resize_bicubic(image.alpha[..., None], scale)[..., 0]
    return Image(resize_bicubic(pixels, scale), alpha, icc=image.icc)


def photo_names(photos: Sequence[str | Path], originals: Sequence[str | Path]) -> list[str]:
    """Return the photos' names: the file name, or the path where two file names are equal.

    Raises ConfigError for no photo, one given twice, and another number of originals.
    """
    if not photos:
        raise ConfigError("nothing to compare: expected at least one photo")
    if originals and len(originals) != len(photos):
        raise ConfigError(
            f"expected one original for each photo, in the same order, got {len(originals)} "
            f"originals for {len(photos)} photos"
        )
    short = [Path(photo).name for photo in photos]
    shown = [
        printable(str(photo) if short.count(name) > 1 else name)
        for photo, name in zip(photos, short, strict=True)
    ]
    for name in shown:
        if shown.count(name) > 1:
            raise ConfigError(f"photo {name} is given twice: omit one")
    return shown


def _summarize(model: EvaluatedModel) -> ModelSummary:
    upscaler = model.upscaler
    policy = upscaler.policy
    described = [source.describe() for source in model.sources]
    return ModelSummary(
        name=printable(model.name),
        network=upscaler.architecture.describe(),
        scale=upscaler.scale,
        license=merge_licenses([str(plain["license"]) for plain in described]),
        files=tuple(
            WeightsFile(printable(source.path.name), plain["sha256"], source.share)
            for source, plain in zip(model.sources, described, strict=True)
        ),
        device=policy.device,
        precision=policy.precision,
        backend=policy.backend,
        tile=policy.tile,
        overlap=policy.overlap,
    )


def _compare_photo(
    named: tuple[str | Path, str],
    original: Path | None,
    models: Sequence[EvaluatedModel],
    settings: CompareSettings,
    callbacks: CompareCallbacks,
) -> Photo:
    """Return all versions of one photo, given by path and name."""
    path, name = named
    scale = models[0].upscaler.scale
    image = read_image(path, max_pixels=settings.max_pixels)
    truth = None
    if original is not None:
        truth = read_image(original, max_pixels=settings.max_pixels * scale**2)
        _check_original(truth, original, (name, image), scale)
        truth = _to_8bit(truth)
    versions = [
        PhotoVersion("input", "input", _to_8bit(image)),
        PhotoVersion("bicubic", "bicubic", upscale_bicubic(image, scale)),
        *(_upscale(model, image, name, callbacks) for model in models),
    ]
    if truth is not None:
        versions.append(PhotoVersion("original", "original", truth))
    notes = list(image.notes)
    if image.bits > 8:
        notes.append(f"{image.bits} bits per channel, upscaled as such and shown with 8")
    if settings.scores:
        callbacks.step(f"{name}, scores")
        versions, missing = _score(versions, truth, settings.channel, scale)
        notes += missing
        if any(version.image.has_alpha for version in versions):
            notes.append("transparent pixels are scored over white")
    return Photo(name, image.height * scale, image.width * scale, tuple(notes), tuple(versions))


def _check_original(truth: Image, path: Path, photo: tuple[str, Image], scale: int) -> None:
    """Raise DatasetError if the original does not have the size of the results."""
    name, image = photo
    expected = image.height * scale, image.width * scale
    if (truth.height, truth.width) != expected:
        raise DatasetError(
            f"{path} has {truth.width}x{truth.height} pixels, but {name} upscaled x{scale} has "
            f"{expected[1]}x{expected[0]}: expected the original that the photo was downscaled from"
        )


def _upscale(
    model: EvaluatedModel, image: Image, name: str, callbacks: CompareCallbacks
) -> PhotoVersion:
    """Upscale with one model and time it."""
    callbacks.step(f"{name}, {printable(model.name)}")
    # A network's first call does one-time work that is not the image's cost.
    model.upscaler(image.with_pixels(image.pixels[:_WARM_UP, :_WARM_UP], None))
    start = time.perf_counter()
    result = model.upscaler(
        image, progress=callbacks.progress, stop_requested=callbacks.stop_requested
    )
    seconds = time.perf_counter() - start
    return PhotoVersion(printable(model.name), "model", _to_8bit(result), seconds)


def _to_8bit(image: Image) -> Image:
    """Return the image in 8 bits with its color profile and no other metadata."""
    alpha = None if image.alpha is None else to_uint8(image.alpha)
    return Image(to_uint8(image.pixels), alpha, icc=image.icc)


def _score(
    versions: Sequence[PhotoVersion], truth: Image | None, channel: Channel, scale: int
) -> tuple[list[PhotoVersion], list[str]]:
    """Return the versions with their scores, and notes on scores that are missing."""
    names = ("niqe",) if truth is None else ("psnr", "ssim")
    scorer = Scorer(select_metrics(names, channel, with_gt=truth is not None), crop=scale)
    target = None if truth is None else _to_rgb_tensor(truth)
    scored, missing = [], []
    for version in versions:
        if version.kind in ("bicubic", "model"):
            values, reasons = scorer(_to_rgb_tensor(version.image), target)
            keys = [metric.key for metric in scorer.metrics]
            pairs = zip(keys, values, strict=True)
            version = replace(version, scores={k: v for k, v in pairs if v is not None})
            missing += [f"not scored: {reason}" for reason in reasons.values()]
        scored.append(version)
    return scored, list(dict.fromkeys(missing))


def _to_rgb_tensor(image: Image) -> Tensor:
    pixels = image.pixels if image.alpha is None else over_white(image.pixels, image.alpha)
    return from_8bit_levels(pixels).expand(-1, 3, -1, -1)
