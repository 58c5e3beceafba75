"""Where a result goes: beside its input, a file, a folder, a template or standard output."""

from __future__ import annotations

import itertools
import os
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from realesr_cli.batch.sources import InputSource
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

Kind = Literal["beside", "file", "folder", "template", "stdout"]


@dataclass(frozen=True)
class Destination:
    """What `-o` means for this run."""

    kind: Kind
    folder: Path | None = None
    """Where results go: for `folder`, and the part before the file name of a `template`."""
    template: str = DEFAULT_TEMPLATE
    """File name (and, for `template`, possibly folders with fields) of each result."""
    file: Path | None = None
    format: str | None = None
    """Format asked for by name; otherwise the extension decides."""


@dataclass(frozen=True)
class NameFields:
    """What a template may speak of besides the source; sizes are of the result, in pixels."""

    model: str
    scale: float
    height: int
    width: int
    img: FormatFields
    source: InputSource


def destination(
    output: str | None,
    sources: int,
    *,
    from_folder: bool = False,
    format: str | None = None,
    suffix: str | None = None,
    from_stdin: bool = False,
) -> Destination:
    """What `-o OUTPUT` means for a run over `sources` images.

    A folder is one that exists, ends in a slash, or is given while there are several inputs or a
    folder as input; anything with a `{field}` is a template; `-` is standard output. Without
    `-o` a result lies beside its input, and that of standard input goes to standard output.

    Raises ConfigError where the output cannot be meant: an unknown field, one file for several
    inputs, an extension that is no image format or disagrees with `format`.
    """
    template = DEFAULT_TEMPLATE if suffix is None else f"{{stem}}_{_escaped(suffix)}{{ext}}"
    if suffix == "":
        template = "{stem}{ext}"
    if output == STDOUT or (output is None and from_stdin and sources == 1):
        if sources > 1:
            raise ConfigError(f"-o -: standard output takes one image, there are {sources}")
        return Destination("stdout", format=format or "png")
    if output is None:
        return Destination("beside", template=template, format=format)
    if _fields(output):
        return _template(output, format)
    path = Path(output.replace("{{", "{").replace("}}", "}"))
    several = sources > 1 or from_folder
    if path.is_dir() or output.endswith(("/", os.sep)):
        return Destination("folder", folder=path, template=template, format=format)
    known = known_format(path)
    if several and known is None and not path.exists():
        return Destination("folder", folder=path, template=template, format=format)
    if several:
        count = "a folder" if from_folder else f"{sources} inputs"
        raise ConfigError(
            f"-o {output}: names one file for {count}; give a folder, or a template such as "
            f"'{DEFAULT_TEMPLATE}'"
        )
    return Destination("file", file=path, format=_agreed(path, format))


def fixed_folder(output: str | None) -> Path | None:
    """The folder below which all results of `-o OUTPUT` lie, None where there is none such."""
    if output is None or output == STDOUT:
        return None
    parts = Path(output).parts
    fixed = list(itertools.takewhile(lambda part: not _fields(part), parts))
    if len(fixed) == len(parts):
        return Path(output)
    return Path(*fixed) if fixed else None


def _template(output: str, format: str | None) -> Destination:
    last = os.path.basename(output)
    for name in _fields(output):
        if name not in FIELDS:
            near = did_you_mean(name, FIELDS)
            raise ConfigError(
                f"-o {output}: unknown field {{{name}}}{near} (known: {', '.join(FIELDS)})"
            )
    if not {"ext", "name"} & set(_fields(last)):
        format = _agreed(Path(last), format)
    return Destination("template", template=output, format=format)


def _fields(text: str) -> list[str]:
    """Names of the `{fields}` of a template; ConfigError where braces do not pair up."""
    try:
        parsed = list(string.Formatter().parse(text))
    except ValueError as error:
        raise ConfigError(f"-o {text}: {error}; a literal brace is written twice") from None
    for _, name, spec, conversion in parsed:
        if name is not None and (spec or conversion):
            raise ConfigError(f"-o {text}: a field is only a name, as in {{{name or 'stem'}}}")
    return [name for _, name, _, _ in parsed if name is not None]


def _agreed(path: Path, format: str | None) -> str:
    """The format a file name states; ConfigError where it states none or another than asked."""
    known = known_format(path)
    if known is None:
        raise ConfigError(
            f"-o {path}: {path.suffix or 'no extension'!r} is no format that can be written; use "
            f"one of {', '.join(WRITABLE)}, or end a folder with a slash"
        )
    if format is not None and format != known:
        raise ConfigError(f"-o {path} is {known}, --format says {format}: leave one away")
    return known


def target(wanted: Destination, facts: NameFields) -> Path | None:
    """The file a result goes to; None for standard output."""
    source = facts.source
    if wanted.kind == "stdout":
        return None
    if wanted.kind == "file":
        return wanted.file
    filled = Path(_fill(wanted, facts))
    if wanted.kind == "beside":
        beside = Path() if source.path is None else source.path.parent
        return beside / filled
    if wanted.kind == "folder":
        assert wanted.folder is not None
        return wanted.folder / source.below / filled
    if "parent" in _fields(wanted.template):
        return filled
    return filled.parent / source.below / filled.name


def _fill(wanted: Destination, facts: NameFields) -> str:
    source = facts.source
    values = {
        "stem": source.stem,
        "name": source.stem + source.extension,
        "ext": _extension(wanted, facts),
        "parent": "" if source.path is None else Path(os.path.abspath(source.path)).parent.name,
        "scale": scale_label(facts.scale),
        "model": facts.model,
        "width": str(facts.width),
        "height": str(facts.height),
    }
    return string.Formatter().vformat(wanted.template, (), values)


def _extension(wanted: Destination, facts: NameFields) -> str:
    """The source's own extension, as it is spelled, where the result can be written so."""
    if wanted.format is not None:
        usual = extension_of(wanted.format)
    else:
        usual = default_extension(facts.img)
    own = facts.source.extension
    return own if known_format(Path("x" + own)) == format_of(Path("x" + usual)) else usual


def known_format(path: Path) -> str | None:
    """The format that a file name states, None where it states none that can be written."""
    try:
        return format_of(path)
    except UnsupportedImageError:
        return None


def scale_label(scale: float) -> str:
    """A factor as it stands in a file name: `4`, `2.5`, `0.33`."""
    return f"{round(scale, 2):g}"


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")
