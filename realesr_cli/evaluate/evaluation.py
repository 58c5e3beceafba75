"""`evaluate`: score models, bicubic and finished results on one set of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realesr_cli._version import __version__
from realesr_cli.engine.settings import EngineSettings
from realesr_cli.engine.upscaler import Upscaler
from realesr_cli.errors import ConfigError, RealesrError
from realesr_cli.evaluate.evaluated_models import (
    EvaluatedModel,
    check_unique_names,
    common_scale,
    open_models,
)
from realesr_cli.evaluate.images import (
    BICUBIC,
    Degrade,
    OutputWriter,
    Pixels,
    make_degrade,
    resize_bicubic,
)
from realesr_cli.evaluate.scores import Metric, Scorer, load_scorer, select_metrics
from realesr_cli.evaluate.sets import Failure, ImageSet, MeasuredItem, find_items, measure_items
from realesr_cli.evaluate.settings import ImageSetSettings, ScoreSettings
from realesr_cli.image.read import read_rgb8
from realesr_cli.image.types import Image
from realesr_cli.ops.quantize import from_8bit_levels
from realesr_cli.progress import Progress, no_progress
from realesr_cli.text import format_names
from realesr_cli.weights.cache import sha256_of

_DEFAULTS = ScoreSettings()


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
    """Scores of methods on the same images; an image that failed has no row of any method."""

    metrics: tuple[Metric, ...]
    methods: tuple[str, ...]
    rows: tuple[Row, ...]
    failures: tuple[Failure, ...]
    settings: Mapping[str, Any]
    """How the scores were computed, as plain data."""
    notes: tuple[str, ...] = ()

    @property
    def images(self) -> tuple[str, ...]:
        """Names of the images that have scores."""
        return tuple(dict.fromkeys(row.image for row in self.rows))

    def mean(self, method: str, metric: str) -> float | None:
        """Return the mean of a column over all images that have that score; None if none has."""
        at = [m.key for m in self.metrics].index(metric)
        return self.metrics[at].mean([r.values[at] for r in self.rows if r.method == method])


def evaluate(
    image_set: ImageSetSettings,
    models: Sequence[str | Path | Upscaler | EvaluatedModel] = (),
    *,
    outputs: Mapping[str, Path] | None = None,
    settings: ScoreSettings = _DEFAULTS,
    engine: EngineSettings = EngineSettings(precision="fp32"),
    progress: Progress = no_progress,
) -> Evaluation:
    """Score models, and results of other tools, on a set of images.

    `models` are names, files, run folders or open networks; `outputs` are folders of finished
    images by the name of their row. Bicubic is the first row if there are low-quality images.
    Without ground truths only the scores that need none are computed. All scores are those of 8-bit
    images.

    An image that cannot be read or upscaled is excluded for all methods and listed in `failures`.
    `progress` counts the rows of every image. Raises ConfigError for models of different scales and
    contradicting settings, DatasetError for images that do not match, and what opening a model or
    loading a metric raises.
    """
    folders = dict(outputs or {})
    _check_inputs(image_set, models, folders)
    opened = open_models(models, engine, scale=image_set.scale, offline=settings.offline)
    columns = select_metrics(settings.metrics, settings.channel, with_gt=image_set.gt is not None)
    items, notes = find_items(image_set, folders)
    found = measure_items(items, common_scale(opened, image_set.scale))
    baseline = (BICUBIC,) if image_set.upscales else ()
    made = (*baseline, *(model.name for model in opened))
    check_unique_names((*made, *folders))
    run = _Run(
        methods=(*made, *folders),
        models=opened,
        scorer=load_scorer(columns, _crop(settings, found, image_set), settings),
        degrade=_degrade(image_set, found),
        scale=found.scale,
        writer=_writer(image_set, settings, made, folders, found),
    )
    rows, failures = run.score_all(found.images, progress)
    return Evaluation(
        metrics=columns,
        methods=run.methods,
        rows=tuple(rows),
        failures=(*found.failures, *failures),
        settings=_describe(image_set, settings, run, folders),
        notes=(*notes, *_missing_scores(columns, rows)),
    )


@dataclass(frozen=True)
class _Run:
    """What is done with each image."""

    methods: tuple[str, ...]
    models: tuple[EvaluatedModel, ...]
    scorer: Scorer
    degrade: Degrade | None
    scale: int | None
    writer: OutputWriter | None

    def score_all(
        self, images: Sequence[MeasuredItem], progress: Progress
    ) -> tuple[list[Row], list[Failure]]:
        """Return the rows of all images, and the images that failed."""
        rows: list[Row] = []
        failures: list[Failure] = []
        each, total = len(self.methods), len(self.methods) * len(images)
        for number, image in enumerate(images):

            def step(done: int, start: int = number * each) -> None:
                progress(start + done, total)

            step(0)
            try:
                rows += self._score(image, step)
            except RealesrError as error:
                failures.append(Failure(image.item.name, str(error)))
            step(each)
        return rows, failures

    def _score(self, image: MeasuredItem, step: Callable[[int], None]) -> list[Row]:
        """Return all rows of one image; raises the RealesrError that makes it impossible."""
        name = image.item.name
        gt = None if image.item.gt is None else read_rgb8(image.item.gt)
        if gt is not None and image.gt_size is not None:
            gt = gt[: image.gt_size[0], : image.gt_size[1]]
        target = None if gt is None else from_8bit_levels(gt)
        rows = []
        results = zip(self.methods, self._results(image, gt), strict=True)
        for done, (method, pixels) in enumerate(results, 1):
            if gt is not None:
                pixels = pixels[: gt.shape[0], : gt.shape[1]]
            if self.writer is not None:
                self.writer.write(method, name, pixels)
            values, reasons = self.scorer(from_8bit_levels(pixels), target)
            rows.append(Row(name, method, values, reasons))
            step(done)
        return rows

    def _results(self, image: MeasuredItem, gt: Pixels | None) -> Iterator[Pixels]:
        """Yield the image by each method in order, each computed when it is asked for."""
        lq = None
        if image.item.lq is not None:
            lq = read_rgb8(image.item.lq)
        elif self.degrade is not None:
            assert gt is not None
            lq = self.degrade(gt, image.item.name)
        if lq is not None:
            assert self.scale is not None
            yield resize_bicubic(lq, self.scale)
            for model in self.models:
                yield model.upscaler(Image(lq)).pixels
        for path in image.item.outputs:
            yield read_rgb8(path)


def _check_inputs(
    image_set: ImageSetSettings, models: Sequence[Any], outputs: Mapping[str, Path]
) -> None:
    if models and not image_set.upscales:
        raise ConfigError(
            "the models have nothing to upscale: neither lq nor degrade is set",
            advice="evaluate-lq",
        )
    if not outputs and not image_set.upscales:
        raise ConfigError(
            "nothing to evaluate: expected low-quality images for models to upscale, or folders of "
            "finished images",
            advice="evaluate-what",
        )


def _crop(settings: ScoreSettings, found: ImageSet, image_set: ImageSetSettings) -> int:
    """Return the border to exclude; ConfigError if it or the scale cannot be determined."""
    if found.scale is None and image_set.upscales:
        raise ConfigError("the upscaling factor is unknown: set scale", advice="evaluate-scale")
    if settings.crop is not None:
        return settings.crop
    if found.scale is not None:
        return found.scale
    if image_set.gt is None:
        return 0
    raise ConfigError(
        "the border to exclude is unknown, since the scale is: set scale or crop",
        advice="evaluate-crop",
    )


def _degrade(image_set: ImageSetSettings, found: ImageSet) -> Degrade | None:
    if image_set.degrade is None:
        return None
    assert found.scale is not None
    return make_degrade(image_set.degrade, found.scale, image_set.seed)


def _writer(
    image_set: ImageSetSettings,
    settings: ScoreSettings,
    rows: tuple[str, ...],
    outputs: Mapping[str, Path],
    found: ImageSet,
) -> OutputWriter | None:
    """Create the folders for the images to save, if any."""
    if settings.save is None:
        return None
    writer = OutputWriter(settings.save, rows)
    inputs = [path for path in (image_set.gt, image_set.lq, *outputs.values()) if path is not None]
    names = [image.item.name for image in found.images]
    writer.prepare(names, inputs, overwrite=settings.overwrite)
    return writer


def _missing_scores(columns: Sequence[Metric], rows: Sequence[Row]) -> list[str]:
    """Return notes on which scores some images lack, and why."""
    notes = []
    for metric in columns:
        without = [row for row in rows if metric.key in row.reasons]
        for reason in dict.fromkeys(row.reasons[metric.key] for row in without):
            names = dict.fromkeys(r.image for r in without if r.reasons[metric.key] == reason)
            notes.append(f"no {metric.title} of {format_names(names)}: {reason}")
    return notes


def _describe(
    image_set: ImageSetSettings,
    settings: ScoreSettings,
    run: _Run,
    outputs: Mapping[str, Path],
) -> dict[str, Any]:
    """Return how the scores were computed, as plain data."""
    keys = {metric.key for metric in run.scorer.metrics}
    return {
        "gt": None if image_set.gt is None else str(image_set.gt),
        "lq": None if image_set.lq is None else str(image_set.lq),
        "degrade": image_set.degrade,
        "seed": image_set.seed if image_set.degrade not in (None, BICUBIC) else None,
        "scale": run.scale,
        "crop": run.scorer.crop,
        "channel": settings.channel,
        "lpips_net": settings.lpips_net if "lpips" in keys else None,
        "feat_weights": sha256_of(settings.feat_weights) if settings.feat_weights else None,
        "bits": 8,
        "baseline": "MATLAB bicubic (a = -0.5), computed in double precision",
        "models": {model.name: model.describe() for model in run.models},
        "outputs": {name: str(folder) for name, folder in outputs.items()},
        "version": __version__,
    }
