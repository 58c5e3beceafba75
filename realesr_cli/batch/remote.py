"""Inputs and outputs that are URLs: sources as a stream, and where their results go."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from realesr_cli.batch import storage
from realesr_cli.batch.output_paths import Destination, parse_output
from realesr_cli.batch.sources import ALL, Globs, InputSource, find_sources
from realesr_cli.batch.storage import is_url, redact
from realesr_cli.batch.worker import URL_ROOT
from realesr_cli.errors import ConfigError, UnreadableImageError
from realesr_cli.image.formats import is_image
from realesr_cli.text import format_names


def stream_sources(
    arguments: Sequence[str],
    *,
    listed: Sequence[str] = (),
    recursive: bool = False,
    output: str = "",
    stdin: bytes | None = None,
    globs: Globs = ALL,
) -> Iterator[InputSource]:
    """Yield the images that arguments and lines of a list name, URLs first, as they are found.

    What `find_sources` says holds for URLs too, except for patterns. `output` is the URL of the
    results: what is below it is skipped. Raises ConfigError for a URL without images.
    """
    for url in filter(is_url, arguments):
        skipped = _inside(output, url)
        found = storage.list_objects(url, recursive=recursive)
        kept = (
            source
            for item in found
            if (skipped is None or not f"{item.relative}/".startswith(f"{skipped}/"))
            if globs.accept(
                source := _source(item.url, item.relative, item.version, item.url != url)
            )
            if not source.searched or is_image(item.relative) or source.extension == ".cbz"
        )
        first = next(kept, None)
        if first is None:
            advice = "" if recursive else "search-subfolders"
            raise ConfigError(f"no image found in {redact(url)}", advice=advice)
        yield first
        yield from kept
    for url in filter(is_url, listed):
        path = re.sub(r"[?#].*", "", url.partition("://")[2])
        yield _source(url, path.partition("/")[2] or path, "", False)
    local = [argument for argument in arguments if not is_url(argument)]
    lines = [line for line in listed if not is_url(line)]
    if local or lines:
        yield from find_sources(local, listed=lines, recursive=recursive, stdin=stdin, globs=globs)


def _inside(output: str, url: str) -> str | None:
    """Return the path of the output below a searched URL; None where it is not below it.

    Raises ConfigError where it is the same.
    """
    results, searched = (text.partition("{")[0].rstrip("/") for text in (output, url))
    if results == searched and output:
        raise ConfigError(f"{redact(url)} is both input and output", advice="choose-output")
    return results[len(searched) + 1 :] if results.startswith(f"{searched}/") else None


def _source(url: str, relative: str, version: str, searched: bool) -> InputSource:
    path = PurePosixPath(relative)
    error = None
    # Below the output folder a name of somebody else's must not lead out of it.
    if ".." in path.parts or (os.name == "nt" and re.search(r"[\\:]", relative)):
        error = UnreadableImageError(f"{redact(url)}: this name cannot be used for a file")
    return InputSource(
        Path(path.name or "image"),
        below=Path(path.parent),
        searched=searched,
        url=url,
        version=version,
        error=error,
    )


def parse_url_output(
    output: str | None,
    sources: Iterator[InputSource],
    *,
    format: str | None = None,
    suffix: str | None = None,
) -> tuple[Destination, str, Iterator[InputSource]]:
    """Return what an output means, the URL of its store, and all sources again.

    See `parse_output`; the store is empty where the output is local. Raises ConfigError where
    there is no output or no source, or the store cannot be written to.
    """
    first = list(itertools.islice(sources, 2))
    if not first:
        raise ConfigError("no image found")
    if not output:
        names = format_names(source.name for source in first)
        raise ConfigError(f"an output is needed for the results of {names}", advice="url-output")
    scheme, separator, rest = output.partition("://")
    if not is_url(output):
        scheme, separator, rest = "", "", output
    if scheme.lower() in ("http", "https"):
        raise ConfigError(f"{redact(output)}: results cannot be written to a web server")
    if scheme:
        storage.require_store(output)
    shown, used = f"{scheme}{separator}", f"{URL_ROOT}{os.sep}" if scheme else ""
    try:
        wanted = parse_output(used + rest, first, format=format, suffix=suffix)
    except ConfigError as error:
        text = str(error).replace(used, shown) if used else str(error)
        raise ConfigError(text, advice=error.advice) from None
    return wanted, f"{scheme}:/" if scheme else "", itertools.chain(first, sources)
