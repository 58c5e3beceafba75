"""The work of a run, planned before it starts, and its outcome: one job, one record an image."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from realesr_cli.atomic import check_writable
from realesr_cli.batch import outputs
from realesr_cli.batch.made_by import MadeBy, ModelIdentity, describe_making
from realesr_cli.batch.output_paths import Destination, NameFields, known_format, make_path
from realesr_cli.batch.sources import InputSource, Shard, is_archive
from realesr_cli.engine.settings import EngineSettings, UpscaleSettings, output_size
from realesr_cli.errors import (
    ConfigError,
    ImageError,
    OutOfMemoryError,
    RealesrError,
    UnsupportedImageError,
)
from realesr_cli.image.formats import DEFAULT_MAX_PIXELS, WriteSettings, check_size
from realesr_cli.image.probe import ImageInfo, probe
from realesr_cli.progress import Progress

Status = Literal["done", "skipped", "failed", "stopped", "planned"]


@dataclass(frozen=True)
class Job:
    """One image or archive to make, with everything that decides its pixels except the model."""

    source: InputSource
    target: Path | None = None
    """File of the result; None for standard output."""
    upscale: UpscaleSettings = field(default_factory=UpscaleSettings)
    write: WriteSettings = field(default_factory=WriteSettings)
    """How the result is written; the format is always set, unless there is an error."""
    max_pixels: int | None = DEFAULT_MAX_PIXELS
    info: ImageInfo | None = None
    """What the input is; None where it could not be read."""
    out_height: int = 0
    out_width: int = 0
    made_by: MadeBy | None = None
    """Record of how the result is made, for its metadata."""
    finished: bool = False
    """Whether the result exists already."""
    error: RealesrError | None = field(default=None, compare=False)
    """Why the image cannot be made; the rest of the run goes on."""
    members: tuple[Job, ...] = ()
    """The images of an archive, each with an `entry`; empty for an image."""
    entry: str = ""
    """Name of the result inside the archive that it belongs to."""
    url: str = ""
    """URL of the object that the result becomes, where `target` is only temporary."""

    @property
    def output(self) -> str | None:
        """The result as a person would type it; None for standard output."""
        return self.url or (None if self.target is None else str(self.target))

    @property
    def pending(self) -> bool:
        """Whether the network still has to make it."""
        return self.error is None and not self.finished

    @property
    def pixel_bytes(self) -> int:
        """Bytes of one pixel of the result in memory, as integers."""
        if self.info is None:
            return 0
        return (self.info.channels + self.info.has_alpha) * (self.info.bits // 8)

    @property
    def input_bytes(self) -> int:
        """Size of the input in memory, as integers."""
        return 0 if self.info is None else self.info.height * self.info.width * self.pixel_bytes

    @property
    def output_bytes(self) -> int:
        """Size of the result in memory, as integers."""
        return self.out_height * self.out_width * self.pixel_bytes


@dataclass(frozen=True)
class BatchSettings:
    """What is the same for every image of a run."""

    model: str
    """Name of the model, for templates."""
    scale: int
    """The model's own scale."""
    upscale: UpscaleSettings = field(default_factory=UpscaleSettings)
    write: WriteSettings = field(default_factory=WriteSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    identities: tuple[tuple[ModelIdentity, ...], ...] = ()
    """The model, and the second one where two are blended, for the records of results."""
    max_pixels: int | None = DEFAULT_MAX_PIXELS
    overwrite: bool = False
    shard: Shard | None = None
    """The part of the inputs that this run makes; None for all."""

    def made_by(self, write: WriteSettings, source: InputSource) -> MadeBy:
        """Return the record of a source's result that is written like this."""
        return describe_making(
            self.identities,
            self.upscale,
            write,
            engine=self.engine,
            input_bytes=source.file_bytes(),
        )


@dataclass(frozen=True)
class BatchPlan:
    """Jobs in the order of the inputs, and inputs excluded as results of earlier runs."""

    jobs: tuple[Job, ...]
    excluded: tuple[InputSource, ...] = ()

    @property
    def pending(self) -> tuple[Job, ...]:
        """The jobs that need the network."""
        return tuple(job for job in self.jobs if job.pending)


def make_plan(
    sources: Sequence[InputSource],
    wanted: Destination,
    settings: BatchSettings,
    *,
    progress: Progress | None = None,
) -> BatchPlan:
    """Measure the sources, name the results, and find those that are finished or cannot be made.

    Only headers are read, and existing results (`progress` counts these). An image that cannot be
    read, or whose result does not fit its format, keeps the reason as its job's `error`. Raises
    ConfigError for what is wrong with the run as a whole: two inputs with one output, an output
    that is an input or a folder, a folder that cannot be written to, write settings that
    contradict a result's format.
    """
    kept = outputs.without_results_by_name(sources, wanted)
    if settings.shard is not None:  # Not before: whether a file is a result depends on others.
        kept = [source for source in kept if settings.shard.contains(source)]
        sources = [source for source in sources if settings.shard.contains(source)]
    kept = outputs.without_results_by_record(kept, wanted)
    jobs = outputs.without_results_by_target([make_job(s, wanted, settings) for s in kept])
    remaining = {id(job.source) for job in jobs}
    excluded = tuple(s for s in sources if id(s) not in remaining)
    outputs.check_unique(jobs)
    outputs.check_not_inputs(jobs)
    outputs.check_not_folders(jobs)
    if not settings.overwrite:
        jobs = outputs.with_existing(jobs, progress)
    check_writable(job.target for job in jobs if job.pending)
    return BatchPlan(tuple(jobs), excluded)


def has_size(settings: UpscaleSettings) -> bool:
    """Return whether the size of the result is given in pixels rather than as a factor."""
    given = (settings.width, settings.height, settings.fit, settings.max_side)
    return any(value is not None for value in given)


def make_job(
    source: InputSource,
    wanted: Destination,
    settings: BatchSettings,
    *,
    info: ImageInfo | None = None,
) -> Job:
    """Measure one source, unless `info` is known, and name its result.

    What is wrong with the image is the job's `error`. Raises ConfigError.
    """
    job = Job(source, upscale=settings.upscale, write=settings.write)
    job = replace(job, max_pixels=settings.max_pixels)
    try:
        if source.error is not None:
            raise source.error
        if source.is_archive:
            return _make_archive_job(job, wanted, settings)
        info = info or probe(source.content(), max_pixels=job.max_pixels)
        height, width = output_size(job.upscale, (info.height, info.width), settings.scale)
    except ImageError as error:
        return replace(job, error=error)
    job = replace(job, info=info, out_height=height, out_width=width)
    job = replace(job, target=make_path(wanted, _name_fields(job, settings)))
    return _check_format(job, wanted, settings)


def _name_fields(job: Job, settings: BatchSettings) -> NameFields:
    assert job.info is not None
    scale = job.upscale.scale
    if scale is None:
        scale = job.out_width / job.info.width if has_size(job.upscale) else settings.scale
    return NameFields(settings.model, scale, job.out_height, job.out_width, job.info, job.source)


def _check_format(job: Job, wanted: Destination, settings: BatchSettings) -> Job:
    """Return the job with the format of its result, or with the reason why it cannot have it."""
    target = job.target
    format = wanted.format or (None if target is None else known_format(target))
    try:
        if format is None:
            raise UnsupportedImageError(
                f"{target}: the extension names no format that can be written",
                advice="choose-format",
            )
        check_size(format, job.out_height, job.out_width, bytes_per_pixel=job.pixel_bytes)
        outputs.check_name(target)
    except ImageError as error:
        return replace(job, error=error)
    try:
        write = replace(settings.write, format=format)
    except ConfigError as error:
        raise error.prefixed(str(target or "standard output")) from None
    return replace(job, write=write, made_by=settings.made_by(write, job.source))


def _make_archive_job(job: Job, wanted: Destination, settings: BatchSettings) -> Job:
    """Plan an archive: a job for each of its images, and the archive that they go to.

    Raises ImageError where an image cannot be made: an archive is made whole or not at all.
    """
    from realesr_cli.batch.archives import image_members

    inside = Destination("beside", template="{stem}{ext}", format=settings.write.format)
    members = []
    for source in image_members(job.source, job.max_pixels):
        member = make_job(source, inside, settings)
        if member.error is not None:
            error = member.error
            raise error if source.name in str(error) else error.prefixed(source.name)
        assert member.target is not None
        assert source.member is not None
        entry = str(PurePosixPath(source.member).with_name(member.target.name))
        members.append(replace(member, target=None, entry=entry))
    entries = [member.entry for member in members]
    if len(set(entries)) < len(entries):
        text = f"{job.source.name}: two of its images would have the same name"
        raise UnsupportedImageError(text, advice="archive-format")
    first = replace(members[0], source=job.source)
    target = make_path(wanted, _name_fields(first, settings))
    if target is None or not is_archive(target.suffix):
        text = f"{job.source.name} is an archive, but the output {target or 'stdout'} is not"
        raise UnsupportedImageError(text, advice="archive-output")
    outputs.check_name(target)
    made_by = settings.made_by(settings.write, job.source)
    return replace(job, target=target, members=tuple(members), made_by=made_by)


@dataclass(frozen=True)
class Record:
    """The outcome of one image."""

    job: Job
    status: Status
    seconds: float = 0.0
    """Time spent on the image, without waiting."""
    failure: Exception | None = None
    data: bytes | None = None
    """The encoded image where the job has no file as its target."""
    notes: tuple[str, ...] = ()
    """What the user should know about how the image was read."""

    @property
    def error(self) -> str | None:
        """Why the image was not made."""
        if self.status == "stopped":
            return "not done: the run ended early"
        if self.failure is None or isinstance(self.failure, RealesrError):
            return None if self.failure is None else str(self.failure)
        return f"unexpected {type(self.failure).__name__}: {self.failure}"

    @property
    def trace(self) -> str | None:
        """Traceback of an error that is a bug."""
        if self.failure is None or isinstance(self.failure, RealesrError):
            return None
        return "".join(traceback.format_exception(self.failure))

    @property
    def exit_code(self) -> int:
        """Exit code of the run if this were its only image."""
        if self.failure is None:
            return 0
        return self.failure.exit_code if isinstance(self.failure, RealesrError) else 1


def planned(job: Job) -> Record:
    """Return what is known of a job before it is run."""
    if job.error is not None:
        return Record(job, "failed", failure=job.error)
    return Record(job, "skipped" if job.finished else "planned")


class Tally:
    """What records add up to; only those of failures are kept."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self.failed: list[Record] = []
        self._counts: Counter[str] = Counter()
        self._seconds = 0.0
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Count one more."""
        self._counts[record.status] += 1
        self._seconds += record.seconds
        if record.status == "failed":
            self.failed.append(record)

    @property
    def count(self) -> int:
        """Number of records."""
        return self._counts.total()

    @property
    def exit_code(self) -> int:
        """0 where nothing failed, 4 where the only reason was memory, else 1."""
        codes = {record.exit_code for record in self.failed}
        if not codes:
            return 0
        return OutOfMemoryError.exit_code if codes == {OutOfMemoryError.exit_code} else 1

    def to_plain(self) -> dict[str, Any]:
        """Return the number of records by status, and the sum of their seconds."""
        counts = {key: self._counts[key] for key in ("done", "skipped", "failed", "stopped")}
        return {**counts, "seconds": round(self._seconds, 3)}
