"""Photos enlarged by several models and by bicubic, to be looked at side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from realesr_cli.errors import ConfigError, DatasetError, ImageError
from realesr_cli.evaluate.compare_settings import CompareSettings
from realesr_cli.evaluate.comparison import (
    Comparison,
    Failure,
    ModelFacts,
    Photo,
    Version,
    WeightsFile,
    printable,
)
from realesr_cli.evaluate.pictures import Pixels, to_pixels, to_tensor
from realesr_cli.evaluate.scores import Judge, chosen
from realesr_cli.evaluate.settings import Channel
from realesr_cli.image.alpha import bleed
from realesr_cli.image.depth import Array, over_white, to_uint8
from realesr_cli.image.read import read_image
from realesr_cli.image.record import Image
from realesr_cli.infer.settings import EngineSettings
from realesr_cli.infer.upscaler import Upscaler
from realesr_cli.ops.resize import imresize
from realesr_cli.weights.open import OpenedModel, open_model
from realesr_cli.weights.provenance import merged_licence

Report = Callable[[int, int], None]

_WARM_UP = 64
"""Side in pixels of what a model computes before its time is taken."""


@dataclass(frozen=True)
class Hooks:
    """What is told while the work goes on: the next step, tiles, bytes of a download; and `cancel`,
    which is asked between tiles."""

    step: Callable[[str], None] = lambda text: None
    tiles: Report = lambda done, total: None
    download: Report = lambda done, total: None
    cancel: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class _Ready:
    """A model that is ready, and what is told of it."""

    facts: ModelFacts
    upscaler: Upscaler


_USUAL, _SILENT = CompareSettings(), Hooks()


def compare(
    photos: Sequence[str | Path],
    models: Sequence[str | Path],
    *,
    originals: Sequence[str | Path] = (),
    settings: CompareSettings = _USUAL,
    engine: EngineSettings = EngineSettings(),
    hooks: Hooks = _SILENT,
) -> Comparison:
    """Enlarge photos with every model and with bicubic, and score the results.

    `originals` holds, in the order of the photos, pictures that the photos are reduced from: PSNR
    and SSIM are taken against them, `scale` pixels left out on each side. Without originals NIQE
    is taken. A photo or original that cannot be used becomes a `Failure`, and the
    others go on.

    Raises ConfigError for no or doubled models or photos, another number of originals than of
    photos, and models of different scales; what `open_model` raises; Cancelled; and, where no
    photo at all could be used, the reason.
    """
    if originals and len(originals) != len(photos):
        raise ConfigError(
            f"{len(photos)} photos and {len(originals)} originals: give one original for each "
            "photo, in the same order"
        )
    photo_names = _distinct(photos, [Path(p).name for p in photos], "photo")
    ready = _models(models, engine, settings.offline, hooks)
    scale = ready[0].facts.scale
    done, failures = [], []
    first: ImageError | DatasetError | None = None
    for index, path in enumerate(photos):
        original = Path(originals[index]) if originals else None
        try:
            done.append(_photo((path, photo_names[index]), original, ready, settings, hooks))
        except (ImageError, DatasetError) as error:
            first = first or error
            failures.append(Failure(photo_names[index], str(error)))
    if first is not None and not done:
        if len(failures) == 1:
            raise first
        listed = "".join(f"\n  {failure.error}" for failure in failures)
        raise DatasetError(f"none of the {len(failures)} photos can be compared:{listed}")
    return Comparison(scale, tuple(r.facts for r in ready), tuple(done), tuple(failures))


def bicubic(image: Image, scale: int) -> Image:
    """MATLAB's bicubic enlargement, in 8 bits; colour is spread under transparent pixels first."""
    pixels = image.pixels
    if image.alpha is not None:
        pixels = bleed(pixels, image.alpha)
    alpha = None if image.alpha is None else _enlarged(image.alpha[..., None], scale)[..., 0]
    return Image(_enlarged(pixels, scale), alpha, icc=image.icc)


def _enlarged(pixels: Array, scale: int) -> Pixels:
    top = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}.get(pixels.dtype, 1)
    unit = torch.from_numpy(pixels.astype(np.float64) / top).permute(2, 0, 1)
    return to_pixels(imresize(unit[None], scale)[0])


def _distinct(given: Sequence[str | Path], names: Sequence[str], what: str) -> list[str]:
    """One name for each, longer where the short ones are equal; ConfigError where they stay so."""
    if not given:
        raise ConfigError(f"nothing to compare: name a {what}")
    shown = [
        printable(str(full) if names.count(name) > 1 else name)
        for full, name in zip(given, names, strict=True)
    ]
    for name in shown:
        if shown.count(name) > 1:
            raise ConfigError(f"{what} {name} is given twice: leave one out")
    return shown


def _models(
    models: Sequence[str | Path], engine: EngineSettings, offline: bool | None, hooks: Hooks
) -> list[_Ready]:
    opened: list[OpenedModel] = []
    for model in models:
        hooks.step(f"loading {model}")
        opened.append(open_model(model, offline=offline, report=hooks.download))
    names = _distinct(models, [one.name for one in opened], "model")
    scales = [one.architecture.scale for one in opened]
    if len(set(scales)) > 1:
        listed = ", ".join(f"{n} is x{s}" for n, s in zip(names, scales, strict=True))
        raise ConfigError(
            f"models of different scales cannot stand side by side: {listed}; compare those of "
            "one scale at a time"
        )
    return [_ready(name, one, engine) for name, one in zip(names, opened, strict=True)]


def _ready(name: str, opened: OpenedModel, engine: EngineSettings) -> _Ready:
    upscaler = Upscaler(opened.net, engine)
    policy = upscaler.policy
    described = [source.describe() for source in opened.sources]
    facts = ModelFacts(
        name=name,
        network=opened.architecture.describe(),
        scale=opened.architecture.scale,
        licence=merged_licence([str(plain["licence"]) for plain in described]),
        files=tuple(
            WeightsFile(printable(source.path.name), plain["sha256"], source.share)
            for source, plain in zip(opened.sources, described, strict=True)
        ),
        device=policy.device,
        precision=policy.precision,
        tile=policy.tile,
        overlap=policy.overlap,
    )
    return _Ready(facts, upscaler)


def _photo(
    named: tuple[str | Path, str],
    original: Path | None,
    ready: Sequence[_Ready],
    settings: CompareSettings,
    hooks: Hooks,
) -> Photo:
    path, name = named
    scale = ready[0].facts.scale
    image = read_image(path, max_pixels=settings.max_pixels)
    truth = None
    if original is not None:
        most = settings.max_pixels * scale**2
        truth = _original(read_image(original, max_pixels=most), original, (name, image), scale)
    made = [
        Version("input", "input", _shown(image)),
        Version("bicubic", "bicubic", bicubic(image, scale)),
        *(_by_model(one, image, name, hooks) for one in ready),
    ]
    if truth is not None:
        made.append(Version("original", "original", truth))
    notes = _notes(image)
    if settings.scores:
        hooks.step(f"{name}, scores")
        made, gaps = _scored(made, truth, settings.channel, scale)
        notes += gaps
        if any(version.picture.has_alpha for version in made):
            notes = (*notes, "transparent pixels are scored over white")
    return Photo(name, image.height * scale, image.width * scale, notes, tuple(made))


def _by_model(one: _Ready, image: Image, name: str, hooks: Hooks) -> Version:
    hooks.step(f"{name}, {one.facts.name}")
    # The first call of a network prepares things that are not the picture's cost.
    one.upscaler(image.with_pixels(image.pixels[:_WARM_UP, :_WARM_UP], None))
    began = time.perf_counter()
    result = one.upscaler(image, report=hooks.tiles, cancel=hooks.cancel)
    return Version(one.facts.name, "model", _shown(result), time.perf_counter() - began)


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
    """The picture in 8 bits with its colour profile, and nothing else that its file says."""
    alpha = None if image.alpha is None else to_uint8(image.alpha)
    return Image(to_uint8(image.pixels), alpha, icc=image.icc)


def _notes(image: Image) -> tuple[str, ...]:
    notes = list(image.notes)
    if image.bits > 8:
        notes.append(f"{image.bits} bits a channel, computed as such and shown with 8")
    return tuple(notes)


def _scored(
    versions: Sequence[Version], truth: Image | None, channel: Channel, scale: int
) -> tuple[list[Version], tuple[str, ...]]:
    """The versions with their scores, and why some have none (the picture is too small)."""
    if truth is None:
        judge, target = Judge(chosen(("niqe",), channel, with_gt=False), crop=0), None
    else:
        metrics = chosen(("psnr", "ssim"), channel, with_gt=True)
        judge, target = Judge(metrics, crop=scale), _opaque(truth)
    scored, gaps = [], []
    for version in versions:
        if version.kind in ("bicubic", "model"):
            values, reasons = judge.scores(_opaque(version.picture), target, "", version.name)
            keys = [metric.key for metric in judge.metrics]
            pairs = zip(keys, values, strict=True)
            version = replace(version, scores={k: v for k, v in pairs if v is not None})
            gaps += [f"not scored: {reason}" for reason in reasons.values()]
        scored.append(version)
    return scored, tuple(dict.fromkeys(gaps))


def _opaque(image: Image) -> Tensor:
    pixels = image.pixels if image.alpha is None else over_white(image.pixels, image.alpha)
    return to_tensor(pixels).expand(3, -1, -1)
