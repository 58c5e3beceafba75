"""Files at and around the outputs of a run: what must not be overwritten, and what is finished."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from realesr_cli.batch.made_by import find_differences, parse_made_by
from realesr_cli.batch.sources import InputSource
from realesr_cli.errors import ConfigError, ImageWriteError, OutputExistsError
from realesr_cli.image.formats import find_format
from realesr_cli.image.probe import read_made_by, whole_size
from realesr_cli.progress import Progress, no_progress
from realesr_cli.text import format_lines

if TYPE_CHECKING:
    from realesr_cli.batch.jobs import Job
    from realesr_cli.batch.output_paths import Destination

_MAX_NAME_BYTES = 255


def without_results_by_name(
    sources: Sequence[InputSource], wanted: Destination
) -> list[InputSource]:
    """Exclude what by its name is an earlier result of another source in the same folder."""
    pattern = _result_pattern(wanted.template)
    if pattern is None:
        return list(sources)
    stems = {(_folder(s), s.stem) for s in sources if s.path is not None}

    def is_result(source: InputSource) -> bool:
        match = pattern.fullmatch(source.stem)
        if match is None or source.path is None or not _goes_beside(source, wanted):
            return False
        return (_folder(source), match["stem"]) in stems

    return [s for s in sources if not is_result(s)]


def _result_pattern(template: str) -> re.Pattern[str] | None:
    """Return the stems that a template such as `{stem}_x{scale}{ext}` makes, for any factor."""
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


def _goes_beside(source: InputSource, wanted: Destination) -> bool:
    """Return whether the result of a source goes into the source's own folder."""
    if wanted.kind == "beside":
        return True
    if wanted.kind != "folder" or wanted.folder is None:
        return False
    return os.path.realpath(wanted.folder / source.below) == _folder(source)


def without_results_by_record(
    sources: Sequence[InputSource], wanted: Destination
) -> list[InputSource]:
    """Exclude what was searched for, not named, and carries our record of how it was made.

    Only where the results go into the searched folder: whoever gives another output folder may
    well want to enlarge results once more.
    """

    def is_result(source: InputSource) -> bool:
        if not source.searched or source.path is None or not _goes_beside(source, wanted):
            return False
        text = _read_record(source.path, archive=source.is_archive)
        return parse_made_by(text) is not None

    return [s for s in sources if not is_result(s)]


def _read_record(path: Path, *, archive: bool) -> str | None:
    if not archive:
        return read_made_by(path)
    from realesr_cli.batch.archives import archive_comment

    return archive_comment(path)


def without_results_by_target(jobs: Sequence[Job]) -> list[Job]:
    """Exclude a source that is exactly the result of another source of this run."""
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
    """Return one text per directory entry: links in its folder are followed, not the entry."""
    return os.path.normcase(os.path.join(os.path.realpath(path.parent), path.name))


def check_unique(jobs: Sequence[Job]) -> None:
    """Raise ConfigError where two jobs have the same output."""
    seen: dict[str, Job] = {}
    clashes = []
    for job in jobs:
        if job.target is None:
            continue
        first = seen.setdefault(_identity(job.target), job)
        if first is not job:
            clashes.append(f"{first.source.name} and {job.source.name} -> {job.target}")
    if clashes:
        text = f"two inputs with the same output:{format_lines(clashes)}"
        raise ConfigError(text, advice="distinct-outputs")


def check_not_inputs(jobs: Sequence[Job]) -> None:
    """Raise ConfigError where an output is an input, be it through a link."""
    files = {_file_id(j.source.path): j.source for j in jobs if j.source.path is not None}
    files.pop(None, None)
    wrong = []
    for job in jobs:
        source = files.get(_file_id(job.target)) if job.target is not None else None
        if source is not None:
            wrong.append(f"{job.target} is the input {source.name}")
    if wrong:
        text = f"an input would be overwritten:{format_lines(wrong)}"
        raise ConfigError(text, advice="choose-output")


def _file_id(path: Path | None) -> tuple[int, int] | None:
    """Identify a file, so that two links to it compare equal; None where there is none."""
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def check_not_folders(jobs: Sequence[Job]) -> None:
    """Raise ConfigError where there is a folder in the place of an output."""
    wrong = [str(j.target) for j in jobs if j.target is not None and os.path.isdir(j.target)]
    if wrong:
        text = f"an output is an existing folder:{format_lines(wrong)}"
        raise ConfigError(text, advice="choose-output")


def check_name(target: Path | None) -> None:
    """Raise ImageWriteError for a file name that is too long for most file systems."""
    size = 0 if target is None else len(os.fsencode(target.name))
    if target is not None and size > _MAX_NAME_BYTES:
        text = f"{target}: the name has {size} bytes, expected at most {_MAX_NAME_BYTES}"
        raise ImageWriteError(text, advice="choose-output")


def with_existing(jobs: Sequence[Job], progress: Progress | None) -> list[Job]:
    """Return the jobs, those marked whose result exists, and those refused that have another file.

    A result of ours that is damaged is made again. Anything else at the output's path may be the
    only copy of something, so the job fails.
    """
    report = progress or no_progress
    existing = [
        job.target is not None and job.error is None and os.path.lexists(job.target) for job in jobs
    ]
    total, done = sum(existing), 0
    checked = []
    for job, exists in zip(jobs, existing, strict=True):
        if exists:
            done += 1
            try:
                job = replace(job, finished=_is_finished(job))
            except ImageWriteError as error:
                job = replace(job, error=error)
            report(done, total)
        checked.append(job)
    return checked


def _is_finished(job: Job) -> bool:
    """Return whether the file at the output is the result of this job, or False to make it again.

    Raises OutputExistsError for any other file.
    """
    path = job.target
    assert path is not None
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        return False
    found = parse_made_by(_read_record(path, archive=bool(job.members)))
    if job.made_by is None or found is None:
        return _is_finished_unrecorded(job, path)
    different = find_differences(found, job.made_by)
    if different:
        text = f"{path}: already exists, made with {', '.join(different)}"
        raise OutputExistsError(text, advice="overwrite-or-rename")
    if job.members:
        return True
    size = whole_size(path)
    if size is not None:
        _check_size(job, path, size)
    return size is not None


def _is_finished_unrecorded(job: Job, path: Path) -> bool:
    """Return whether a result without a record is finished, as far as size and date can tell."""
    if not job.members:
        size = whole_size(path)
        if size is None:
            text = f"{path}: already exists and is not an image of this run"
            raise OutputExistsError(text, advice="overwrite-or-rename")
        _check_size(job, path, size)
    keeps = job.members or find_format(job.write.format or "png").exif_xmp
    if keeps and not job.write.strip_metadata:
        text = f"{path}: already exists without a record of how it was made"
        raise OutputExistsError(text, advice="overwrite-or-rename")
    source = job.source.path
    if source is not None and os.path.getmtime(source) > os.path.getmtime(path):
        text = f"{path}: already exists, older than its input"
        raise OutputExistsError(text, advice="overwrite-or-rename")
    return True


def _check_size(job: Job, path: Path, size: tuple[int, int]) -> None:
    if size != (job.out_height, job.out_width):
        raise OutputExistsError(
            f"{path}: already exists with {size[1]}x{size[0]} pixels instead of "
            f"{job.out_width}x{job.out_height}",
            advice="overwrite-or-rename",
        )
