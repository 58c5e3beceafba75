"""`evaluate`: images enlarged by several models and by bicubic, and the scores of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from realesr_cli._version import __version__
from realesr_cli.engine.settings import EngineSettings
from realesr_cli.engine.upscaler import Upscaler
from realesr_cli.errors import ConfigError, RealesrError
from realesr_cli.evaluate import sets
from realesr_cli.evaluate.evaluated_models import (
    EvaluatedModel,
    Report,
    check_unique_names,
    common_scale,
    open_models,
)
from realesr_cli.evaluate.images import (
    BICUBIC,
    Pixels,
    Shrink,
    bicubic,
    shrinker,
    to_tensor,
)
from realesr_cli.evaluate.output_writer import OutputWriter
from realesr_cli.evaluate.scores import Metric, Scorer, select_metrics
from realesr_cli.evaluate.sets import Failure, ImageSet, Measured
from realesr_cli.evaluate.settings import ImageSetSettings, ScoreSettings
from realesr_cli.image.read import read_rgb8
from realesr_cli.image.types import Image
from realesr_cli.metrics.lpips import Lpips
from realesr_cli.metrics.perceptual_index import assigned, read_ma_scores
from realesr_cli.text import format_names
from realesr_cli.weights.fetch import is_offline

_USUAL = ScoreSettings()


@dataclass(frozen=True)
class Row:
    """The scores of one image by one method, in the order of the columns; None: has none."""

    image: str
    method: str
    values: tuple[float | None, ...]
    reasons: Mapping[str, str]
    """Why there is no score, by the column's key."""


@dataclass(frozen=True)
class Evaluation:
    """Scores of methods on the same images; what failed is in no row of any method."""

    metrics: tuple[Metric, ...]
    methods: tuple[str, ...]
    rows: tuple[Row, ...]
    failures: tuple[Failure, ...]
    settings: Mapping[str, Any]
    """How the numbers were made, as plain data."""
    notes: tuple[str, ...] = ()

    @property
    def images(self) -> tuple[str, ...]:
        """Names of the images that were judged."""
        return tuple(dict.fromkeys(row.image for row in self.rows))

    def mean(self, method: str, metric: str) -> float | None:
        """Of one column over all images that have that score; None where none has."""
        at = [m.key for m in self.metrics].index(metric)
        return self.metrics[at].mean([r.values[at] for r in self.rows if r.method == method])


def evaluate(
    which: ImageSetSettings,
    models: Sequence[str | Path | Upscaler | EvaluatedModel] = (),
    *,
    outputs: Mapping[str, Path] | None = None,
    settings: ScoreSettings = _USUAL,
    engine: EngineSettings = EngineSettings(precision="fp32"),
    offline: bool | None = None,
    report: Report | None = None,
) -> Evaluation:
    """Judge models, and images made by other tools, on a set of images.

    `which` names ground truths and small images, or either; `models` are names, files, runs or
    networks in use; `outputs` are folders of finished images by the name of their row. Plain
    bicubic is the first row wherever there are small images. Without ground truths only the
    scores that need none are given.

    Numbers are those of 8-bit images. An image that cannot be read or made is left out for all
    methods and stands in `failures`. Raises ConfigError for models of different scale and for
    settings that contradict each other, DatasetError for images that do not match, and what
    opening a model raises. `report` counts rows of the table, every image's apart.
    """
    folders = {} if outputs is None else dict(outputs)
    ready = open_models(models, engine, scale=which.scale, offline=offline)
    scale = common_scale(ready, which.scale)
    columns = select_metrics(settings.columns, settings.channel, with_gt=which.gt is not None)
    _check_inputs(which, ready, folders)
    items, notes = sets.find(which, folders)
    image_set = sets.measure(items, scale)
    small = which.lq is not None or which.degrade is not None
    methods = (*((BICUBIC,) if small else ()), *(c.name for c in ready), *folders)
    check_unique_names(methods)
    crop = _crop(settings, image_set, which)
    keeper = None
    if settings.save is not None:
        names = [img.item.name for img in image_set.images]
        keeper = OutputWriter(settings.save, methods[: len(methods) - len(folders)])
        keeper.prepare(names, _inputs(which, folders), overwrite=settings.overwrite)
    judge = _judge_of(settings, columns, crop, offline)
    work = _Work(
        methods=methods,
        models=ready,
        judge=_with_ma(judge, settings, methods, image_set),
        shrink=_shrink(which, image_set),
        scale=image_set.scale,
        keeper=keeper,
    )
    rows, failures = _judge_all(work, image_set, report)
    return Evaluation(
        metrics=columns,
        methods=methods,
        rows=tuple(rows),
        failures=(*image_set.failures, *failures),
        settings=_facts(which, settings, image_set.scale, judge.crop, ready, folders),
        notes=(*notes, *_gaps(columns, rows)),
    )


def _inputs(which: ImageSetSettings, outputs: Mapping[str, Path]) -> list[Path]:
    return [path for path in (which.gt, which.lq, *outputs.values()) if path is not None]


def _judge_of(
    settings: ScoreSettings, columns: tuple[Metric, ...], crop: int, offline: bool | None
) -> Scorer:
    """The columns ready to compute; raises what `Lpips` raises where that is one of them."""
    if "lpips" not in {metric.key for metric in columns}:
        return Scorer(columns, crop)
    return Scorer(columns, crop, Lpips(settings.lpips_net, offline=is_offline(offline)))


def _with_ma(
    judge: Scorer, settings: ScoreSettings, methods: Sequence[str], image_set: ImageSet
) -> Scorer:
    """With the scores of Ma et al., if there is a file of them, which must name every image."""
    if settings.ma is None:
        return judge
    names = [img.item.name for img in image_set.images]
    rows = [m for m in methods if m != BICUBIC] or list(methods)
    scores = read_ma_scores(settings.ma)
    if BICUBIC in scores.scores:
        rows = list(methods)
    return replace(judge, ma=assigned(scores, rows, names))


def _check_inputs(
    which: ImageSetSettings, models: Sequence[EvaluatedModel], outputs: Mapping[str, Path]
) -> None:
    if models and which.lq is None and which.degrade is None:
        raise ConfigError(
            "the models have nothing to enlarge: give small images with --lq, or --degrade "
            "bicubic to make them from the ground truths"
        )
    if not outputs and which.lq is None and which.degrade is None:
        raise ConfigError(
            "nothing to judge: give --lq or --degrade with models (-m), or finished images "
            "(a folder, or --outputs NAME=FOLDER)"
        )


def _crop(settings: ScoreSettings, image_set: ImageSet, which: ImageSetSettings) -> int:
    """The border that is left out. ConfigError where the scale is needed and nothing tells it."""
    if image_set.scale is None and (which.lq is not None or which.degrade is not None):
        raise ConfigError("nothing tells by how much the images are enlarged: give --scale")
    if settings.crop is not None:
        return settings.crop
    if image_set.scale is not None:
        return image_set.scale
    if which.gt is None:
        return 0
    raise ConfigError(
        "nothing tells the scale, and with it the border that is left out: give --scale or --crop"
    )


def _shrink(which: ImageSetSettings, image_set: ImageSet) -> Shrink | None:
    if which.degrade is None:
        return None
    assert image_set.scale is not None
    return shrinker(which.degrade, image_set.scale, which.seed)


@dataclass(frozen=True)
class _Work:
    """What is done with each image."""

    methods: tuple[str, ...]
    models: tuple[EvaluatedModel, ...]
    judge: Scorer
    shrink: Shrink | None
    scale: int | None
    keeper: OutputWriter | None


def _judge_all(
    work: _Work, image_set: ImageSet, report: Report | None
) -> tuple[list[Row], list[Failure]]:
    rows: list[Row] = []
    failures: list[Failure] = []
    each = len(work.methods)
    total = each * len(image_set.images)
    for number, img in enumerate(image_set.images):

        def step(done: int, before: int = number * each) -> None:
            if report is not None:
                report(before + done, total)

        step(0)
        try:
            rows += _judge(work, img, step)
        except RealesrError as error:
            failures.append(Failure(img.item.name, str(error)))
        step(each)
    return rows, failures


def _judge(work: _Work, img: Measured, step: Callable[[int], None]) -> list[Row]:
    """All rows of one image. Raises the RealesrError that makes it impossible."""
    name = img.item.name
    gt = None if img.item.gt is None else read_rgb8(img.item.gt)
    if gt is not None and img.gt is not None:
        gt = gt[: img.gt[0], : img.gt[1]]
    target = None if gt is None else to_tensor(gt)
    rows = []
    for done, (method, pixels) in enumerate(
        zip(work.methods, _made(work, img, gt), strict=True), 1
    ):
        if gt is not None:
            pixels = pixels[: gt.shape[0], : gt.shape[1]]
        if work.keeper is not None:
            work.keeper.keep(method, name, pixels)
        values, reasons = work.judge.scores(to_tensor(pixels), target, name, method)
        rows.append(Row(name, method, values, reasons))
        step(done)
    return rows


def _made(work: _Work, img: Measured, gt: Pixels | None) -> Any:
    """The image by each method, in their order, each made when it is asked for."""
    small = None
    if img.item.lq is not None:
        small = read_rgb8(img.item.lq)
    elif work.shrink is not None:
        assert gt is not None
        small = work.shrink(gt, img.item.name)
    if small is not None:
        assert work.scale is not None
        yield bicubic(small, work.scale)
        for model in work.models:
            yield model.upscaler(Image(small)).pixels
    for path in img.item.outputs:
        yield read_rgb8(path)


def _gaps(columns: Sequence[Metric], rows: Sequence[Row]) -> list[str]:
    """Which scores some images do not have, and why."""
    notes = []
    for metric in columns:
        without = [row for row in rows if metric.key in row.reasons]
        for reason in dict.fromkeys(row.reasons[metric.key] for row in without):
            names = dict.fromkeys(r.image for r in without if r.reasons[metric.key] == reason)
            notes.append(f"no {metric.title} of {format_names(names)}: {reason}")
    return notes


def _facts(
    which: ImageSetSettings,
    settings: ScoreSettings,
    scale: int | None,
    crop: int,
    models: Sequence[EvaluatedModel],
    outputs: Mapping[str, Path],
) -> dict[str, Any]:
    """How the numbers were made, as plain data."""
    return {
        "gt": None if which.gt is None else str(which.gt),
        "lq": None if which.lq is None else str(which.lq),
        "degrade": which.degrade,
        "seed": which.seed if which.degrade not in (None, BICUBIC) else None,
        "scale": scale,
        "crop": crop,
        "channel": settings.channel,
        "lpips_net": settings.lpips_net if "lpips" in settings.metrics else None,
        "ma": None if settings.ma is None else str(settings.ma),
        "bits": 8,
        "baseline": "MATLAB bicubic (a = -0.5), computed in double precision",
        "models": {model.name: model.facts() for model in models},
        "outputs": {name: str(folder) for name, folder in outputs.items()},
        "version": __version__,
    }
