"""Where results go: beside the input, to a file, a folder, a template or standard output."""

from __future__ import annotations

import itertools
import os
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from realesr_cli.batch.sources import InputSource, is_archive
from realesr_cli.errors import ConfigError, UnsupportedImageError
from realesr_cli.image.formats import (
    WRITABLE,
    FormatFields,
    default_extension,
    extension_of,
    format_of,
)
from realesr_cli.text import did_you_mean

DEFAULT_TEMPLATE = "{stem}_x{scale}{ext}"
STDOUT = "-"
FIELDS = ("stem", "name", "ext", "parent", "scale", "model", "width", "height")


@dataclass(frozen=True)
class Destination:
    """What the output argument means for a run."""

    kind: Literal["beside", "file", "folder", "template", "stdout"]
    folder: Path | None = None
    """Folder of the results, for `folder`."""
    template: str = DEFAULT_TEMPLATE
    """File name of each result; for `template` with folders, which may have fields too."""
    file: Path | None = None
    format: str | None = None
    """Requested format; otherwise the extension decides."""


@dataclass(frozen=True)
class NameFields:
    """Values of the fields of a template; sizes are those of the result, in pixels."""

    model: str
    scale: float
    height: int
    width: int
    image: FormatFields
    source: InputSource


def parse_output(
    output: str | None,
    sources: Sequence[InputSource],
    *,
    format: str | None = None,
    suffix: str | None = None,
) -> Destination:
    """Return what an output argument means for these sources.

    A folder is one that exists, ends in a slash, or is given while there are several inputs or a
    folder as input; anything with a `{field}` is a template; `-` is standard output. Without an
    output, a result goes beside its input, and that of standard input to standard output. `suffix`
    takes the place of `x{scale}` in the name.

    Raises ConfigError for an unknown field, one file for several inputs, and an extension that is
    no image format or contradicts `format`.
    """
    template = DEFAULT_TEMPLATE if suffix is None else f"{{stem}}_{_escape(suffix)}{{ext}}"
    if suffix == "":
        template = "{stem}{ext}"
    from_stdin = len(sources) == 1 and sources[0].path is None
    if output == STDOUT or (output is None and from_stdin):
        if len(sources) > 1:
            raise ConfigError(f"standard output takes one image, got {len(sources)}")
        return Destination("stdout", format=format or "png")
    if output is None:
        return Destination("beside", template=template, format=format)
    if not output:
        raise ConfigError("the output is empty; is a shell variable unset?")
    if _fields(output):
        return _parse_template(output, format)
    path = Path(output.replace("{{", "{").replace("}}", "}"))
    several = len(sources) > 1 or any(source.searched for source in sources)
    if os.path.isdir(path) or output.endswith(("/", os.sep)):
        return Destination("folder", folder=path, template=template, format=format)
    named = known_format(path) is not None or is_archive(path.suffix)
    if several and not named and not os.path.exists(path):
        return Destination("folder", folder=path, template=template, format=format)
    if is_archive(path.suffix) and not several:
        if not sources or not sources[0].is_archive:
            raise ConfigError(f"output {output} is an archive, but the input is not")
        return Destination("file", file=path, format=format)
    if several:
        raise ConfigError(
            f"output {output}: one file for {len(sources)} inputs", advice="folder-or-template"
        )
    return Destination("file", file=path, format=_agree(path, format))


def fixed_folder(output: str | None) -> Path | None:
    """Return the folder below which all results of an output argument go; None where none does."""
    if output is None or output == STDOUT:
        return None
    parts = Path(output).parts
    fixed = list(itertools.takewhile(lambda part: not _fields(part), parts))
    if len(fixed) == len(parts):
        return Path(output)
    return Path(*fixed) if fixed else None


def _parse_template(output: str, format: str | None) -> Destination:
    last = os.path.basename(output)
    for name in _fields(output):
        if name not in FIELDS:
            near = did_you_mean(name, FIELDS)
            known = ", ".join(FIELDS)
            raise ConfigError(f"output {output}: unknown field {{{name}}}{near} (known: {known})")
    if not {"ext", "name"} & set(_fields(last)) and not is_archive(Path(last).suffix):
        format = _agree(Path(last), format)
    return Destination("template", template=output, format=format)


def _fields(text: str) -> list[str]:
    """Return the names of the `{fields}` of a template. Raises ConfigError for unpaired braces."""
    try:
        parsed = list(string.Formatter().parse(text))
    except ValueError as error:
        raise ConfigError(f"output {text}: {error}; a literal brace is written twice") from None
    for _, name, spec, conversion in parsed:
        if name is not None and (spec or conversion):
            raise ConfigError(f"output {text}: expected only a name, as in {{{name or 'stem'}}}")
    return [name for _, name, _, _ in parsed if name is not None]


def _agree(path: Path, format: str | None) -> str:
    """Return the format a file name states. Raises ConfigError for none, or another than asked."""
    known = known_format(path)
    if known is None:
        raise ConfigError(
            f"output {path}: {path.suffix or 'no extension'!r} is not a format that can be "
            f"written; choose one of {', '.join(WRITABLE)}, or end a folder with a slash"
        )
    if format is not None and format != known:
        raise ConfigError(
            f"output {path}: the extension says {known}, the format {format}; omit one of them"
        )
    return known


def make_path(wanted: Destination, fields: NameFields) -> Path | None:
    """Return the file a result goes to; None for standard output."""
    source = fields.source
    if wanted.kind == "stdout":
        return None
    if wanted.kind == "file":
        return wanted.file
    filled = Path(_fill(wanted, fields))
    if wanted.kind == "beside":
        beside = Path() if source.path is None else source.path.parent
        return beside / filled
    if wanted.kind == "folder":
        assert wanted.folder is not None
        return wanted.folder / source.below / filled
    if "parent" in _fields(wanted.template):
        return filled
    return filled.parent / source.below / filled.name


def _fill(wanted: Destination, fields: NameFields) -> str:
    source = fields.source
    values = {
        "stem": source.stem,
        "name": source.stem + source.extension,
        "ext": _extension(wanted, fields),
        "parent": "" if source.path is None else Path(os.path.abspath(source.path)).parent.name,
        "scale": format_scale(fields.scale),
        "model": fields.model,
        "width": str(fields.width),
        "height": str(fields.height),
    }
    return string.Formatter().vformat(wanted.template, (), values)


def _extension(wanted: Destination, fields: NameFields) -> str:
    """Return the source's own extension, as it is spelled, where the result can be written so."""
    if fields.source.is_archive:
        return fields.source.extension
    if wanted.format is not None:
        usual = extension_of(wanted.format)
    else:
        usual = default_extension(fields.image)
    own = fields.source.extension
    return own if known_format(Path("x" + own)) == format_of(Path("x" + usual)) else usual


def known_format(path: Path) -> str | None:
    """Return the format that a file name states; None for one that cannot be written."""
    try:
        return format_of(path)
    except UnsupportedImageError:
        return None


def format_scale(scale: float) -> str:
    """Return a factor as it stands in a file name: `4`, `2.5`, `0.33`."""
    return f"{round(scale, 2):g}"


def _escape(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")
