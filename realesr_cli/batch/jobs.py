"""The work of a run settled before it starts: what becomes what, what is refused, what is done."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from realesr_cli.batch import output_paths
from realesr_cli.batch.output_paths import Destination, known_format
from realesr_cli.batch.sources import InputSource
from realesr_cli.engine.settings import UpscaleSettings, output_size
from realesr_cli.errors import (
    ConfigError,
    ImageError,
    ImageWriteError,
    RealesrError,
    UnsupportedImageError,
)
from realesr_cli.image.formats import DEFAULT_MAX_PIXELS, WriteSettings, check_size
from realesr_cli.image.probe import ImageInfo, probe, whole_size

_LISTED = 5


@dataclass(frozen=True)
class Job:
    """One image to make: where from, where to, and how large."""

    source: InputSource
    target: Path | None = None
    """File of the result; None for standard output."""
    format: str = "png"
    header: ImageInfo | None = None
    out_height: int = 0
    out_width: int = 0
    finished: bool = False
    """Whether a whole result of the right size is there already."""
    error: RealesrError | None = field(default=None, compare=False)
    """Why the image cannot be done; the rest of the run goes on."""

    @property
    def open(self) -> bool:
        """Whether the network has to make it still."""
        return self.error is None and not self.finished

    @property
    def pixel_bytes(self) -> int:
        """Bytes of one pixel of the result in memory, as integers."""
        if self.header is None:
            return 0
        return (self.header.channels + self.header.has_alpha) * (self.header.bits // 8)

    @property
    def output_bytes(self) -> int:
        """Size of the result in memory, as integers."""
        return self.out_height * self.out_width * self.pixel_bytes


@dataclass(frozen=True)
class BatchOptions:
    """What a plan depends on besides the images: the model's name and factor, and the options."""

    model: str
    scale: int
    settings: UpscaleSettings = field(default_factory=UpscaleSettings)
    write: WriteSettings = field(default_factory=WriteSettings)
    max_pixels: int | None = DEFAULT_MAX_PIXELS
    overwrite: bool = False


@dataclass(frozen=True)
class BatchPlan:
    """Jobs in the order of the inputs, and inputs left out as they are results of earlier runs."""

    jobs: tuple[Job, ...]
    left_out: tuple[InputSource, ...] = ()

    @property
    def to_do(self) -> tuple[Job, ...]:
        """The jobs that need the network."""
        return tuple(job for job in self.jobs if job.open)


def make_plan(
    sources: Sequence[InputSource],
    wanted: Destination,
    rules: BatchOptions,
    *,
    report: Callable[[int, int], None] | None = None,
) -> BatchPlan:
    """Measure the sources, name the results, refuse what cannot be, and find what is done already.

    Only headers are read, and results that exist (`report(done, total)` follows these). An image
    that cannot be read, or whose result is too large for its format, keeps the reason as its
    job's `error`. Raises ConfigError for what is wrong with the run as a whole: two inputs with one
    output, an output that is an input or a folder, a folder that cannot be written to, settings
    of writing that a result's format contradicts.
    """
    kept = _without_results_by_name(sources, wanted)
    jobs = [_measured(source, wanted, rules) for source in kept]
    jobs = _without_results_by_target(jobs)
    remaining = {id(job.source) for job in jobs}
    left_out = tuple(s for s in sources if id(s) not in remaining)
    _refuse_clashes(jobs)
    _refuse_inputs(jobs)
    _refuse_folders(jobs)
    if not rules.overwrite:
        jobs = _with_finished(jobs, report)
    refuse_unwritable(job.target for job in jobs if job.open)
    return BatchPlan(tuple(jobs), left_out)


def _measured(source: InputSource, wanted: Destination, rules: BatchOptions) -> Job:
    subject = source.data if source.path is None else source.path
    assert subject is not None
    try:
        header = probe(subject, max_pixels=rules.max_pixels)
        height, width = output_size(rules.settings, (header.height, header.width), rules.scale)
    except ImageError as error:
        return Job(source, error=error)
    scale = rules.settings.scale
    if scale is None:
        scale = rules.scale if not sized(rules.settings) else width / header.width
    facts = output_paths.NameFields(rules.model, scale, height, width, header, source)
    target = output_paths.target(wanted, facts)
    format = wanted.format or (None if target is None else known_format(target))
    job = Job(source, target, format or "", header, height, width)
    try:
        if format is None:
            raise UnsupportedImageError(
                f"{target}: cannot be written with that extension; name another with --format"
            )
        check_size(format, height, width, bytes_per_pixel=job.pixel_bytes)
    except ImageError as error:
        return replace(job, error=error)
    _check_write(job, rules)
    return job


def _check_write(job: Job, rules: BatchOptions) -> None:
    """Raise ConfigError where the format of a result contradicts how results are to be written."""
    try:
        replace(rules.write, format=job.format)
    except ConfigError as error:
        raise ConfigError(f"{job.target or 'stdout'}: {error}") from None


def sized(settings: UpscaleSettings) -> bool:
    """Whether the size of the result is asked for in pixels rather than as a factor."""
    asked = (settings.width, settings.height, settings.fit, settings.max_side)
    return any(value is not None for value in asked)


def _without_results_by_name(
    sources: Sequence[InputSource], wanted: Destination
) -> list[InputSource]:
    """Leave out what by its name is an earlier result of another source in the same folder."""
    pattern = _result_pattern(wanted.template)
    if pattern is None:
        return list(sources)
    stems = {(_folder(s), s.stem) for s in sources if s.path is not None}

    def earlier(source: InputSource) -> bool:
        match = pattern.fullmatch(source.stem)
        if match is None or source.path is None or not _lands_beside(source, wanted):
            return False
        return (_folder(source), match["stem"]) in stems

    return [s for s in sources if not earlier(s)]


def _result_pattern(template: str) -> re.Pattern[str] | None:
    """The stems that a template such as `{stem}_x{scale}{ext}` makes, whatever the factor was."""
    text = template.removesuffix("{ext}")
    if text == template or text.count("{stem}") != 1 or text == "{stem}":
        return None
    plain = text.replace("{scale}", "\0scale").replace("{stem}", "\0stem")
    if "{" in plain.replace("{{", ""):
        return None
    escaped = re.escape(plain.replace("{{", "{").replace("}}", "}"))
    escaped = escaped.replace(re.escape("\0scale"), r"\d+(\.\d+)?")
    return re.compile(escaped.replace(re.escape("\0stem"), "(?P<stem>.+)"))


def _folder(source: InputSource) -> str:
    return "" if source.path is None else os.path.realpath(source.path.parent)


def _lands_beside(source: InputSource, wanted: Destination) -> bool:
    if wanted.kind == "beside":
        return True
    if wanted.kind != "folder" or wanted.folder is None:
        return False
    return os.path.realpath(wanted.folder / source.below) == _folder(source)


def _without_results_by_target(jobs: list[Job]) -> list[Job]:
    """Leave out a source that is exactly the result of another source of this run."""
    makers: dict[str, list[Job]] = {}
    for job in jobs:
        if job.target is not None:
            makers.setdefault(_identity(job.target), []).append(job)

    def made_here(job: Job) -> bool:
        if job.source.path is None:
            return False
        return any(m is not job for m in makers.get(_identity(job.source.path), []))

    return [job for job in jobs if not made_here(job)]


def _identity(path: Path) -> str:
    """One text per directory entry: links in its folder are followed, the entry itself is not."""
    return os.path.normcase(os.path.join(os.path.realpath(path.parent), path.name))


def _refuse_clashes(jobs: Sequence[Job]) -> None:
    seen: dict[str, Job] = {}
    clashes = []
    for job in jobs:
        if job.target is None:
            continue
        first = seen.setdefault(_identity(job.target), job)
        if first is not job:
            clashes.append(f"{first.source.name} and {job.source.name} -> {job.target}")
    if clashes:
        raise ConfigError(
            f"two inputs with the same output:{_lines(clashes)}\n"
            "give a folder as input, or use {name} or {parent} in a template for -o"
        )


def _refuse_inputs(jobs: Sequence[Job]) -> None:
    files = {_file_id(j.source.path): j.source for j in jobs if j.source.path is not None}
    files.pop(None, None)
    bad = []
    for job in jobs:
        source = files.get(_file_id(job.target)) if job.target is not None else None
        if source is not None:
            bad.append(f"{job.target} is the input {source.name}")
    if bad:
        raise ConfigError(
            f"an input would be overwritten:{_lines(bad)}\nchoose another output with -o"
        )


def _file_id(path: Path | None) -> tuple[int, int] | None:
    """The file itself, so that two links to it compare equal; None where there is none."""
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _refuse_folders(jobs: Sequence[Job]) -> None:
    bad = [str(j.target) for j in jobs if j.target is not None and j.target.is_dir()]
    if bad:
        raise ConfigError(f"an output is a folder:{_lines(bad)}\nmove it, or choose with -o")


def _lines(texts: Sequence[str]) -> str:
    shown = [f"\n  {text}" for text in texts[:_LISTED]]
    more = len(texts) - _LISTED
    return "".join(shown) + (f"\n  and {more} more" if more > 0 else "")


def refuse_unwritable(targets: Iterable[Path | None]) -> None:
    """Raise ConfigError where the folder of a target, or the first one above it, takes no file."""
    for folder in dict.fromkeys(t.parent for t in targets if t is not None):
        place = folder
        while not os.path.lexists(place) and place != place.parent:
            place = place.parent
        try:
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as error:
            raise ConfigError(
                f"cannot write into {folder}: {error.strerror or error}; choose another output "
                "folder with -o"
            ) from None


def _with_finished(jobs: Sequence[Job], report: Callable[[int, int], None] | None) -> list[Job]:
    """The jobs, those marked whose result exists whole and in the right size.

    A damaged result is made again. A whole image of another size is nobody's unfinished result:
    the job fails, since it may be the only copy of something else.
    """
    there = [j.target for j in jobs if j.error is None and j.target is not None]
    there = [t for t in there if t.is_file()]
    sizes: dict[Path, tuple[int, int] | None] = {}
    for done, path in enumerate(there, 1):
        sizes[path] = whole_size(path)
        if report is not None:
            report(done, len(there))
    return [_checked(job, sizes) for job in jobs]


def _checked(job: Job, sizes: dict[Path, tuple[int, int] | None]) -> Job:
    if job.error is not None or job.target is None:
        return job
    size = sizes.get(job.target)
    if size == (job.out_height, job.out_width):
        return replace(job, finished=True)
    if size is not None:
        text = (
            f"{job.target}: is there already with {size[1]}x{size[0]} pixels instead of "
            f"{job.out_width}x{job.out_height}; --overwrite replaces it, -o writes elsewhere"
        )
        return replace(job, error=ImageWriteError(text))
    return job
