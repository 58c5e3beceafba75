"""Options shared by commands, and click options derived from settings dataclasses."""

from __future__ import annotations

import functools
import os
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin

import click
from click.shell_completion import CompletionItem

from realesr_cli.atomic import check_writable
from realesr_cli.errors import ConfigError
from realesr_cli.settings import Setting, walk, with_values

T = TypeVar("T")
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:  # generic only in newer releases of click
    ParamType = click.ParamType

_META = "realesr_cli.settings"


def settings_options(
    cls: type,
    *,
    short: Mapping[str, Sequence[str]] | None = None,
    skip: Collection[str] = (),
    only: Collection[str] | None = None,
) -> Decorator:
    """Return a decorator that adds one option for every setting of a dataclass.

    The setting `part.tile_size` becomes `--part-tile-size`; its type, help, limits and default
    come from the field. `short` gives further names by key, as `{"tile": ("-t",)}`; `skip` and
    `only` choose keys. Nothing is passed to the command: `settings_from(ctx, cls)` builds the
    object, so that a command's signature does not repeat the fields.
    """
    chosen = [
        s
        for s in walk(cls)
        if s.key not in skip and (only is None or s.key in only) and _can_be_option(s.type)
    ]

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for setting in reversed(chosen):
            function = _option(cls, setting, (short or {}).get(setting.key, ()))(function)
        return function

    return decorate


def settings_from(ctx: click.Context, cls: type[T], base: T | None = None) -> T:
    """Build the settings object of a command: defaults (or `base`), with the given options on top.

    Raises ConfigError where options contradict each other.
    """
    return with_values(cls() if base is None else base, given_settings(ctx, cls))


def given_settings(ctx: click.Context, cls: type) -> dict[str, Any]:
    """Return only what the user gave on the command line, by dotted key."""
    return dict(ctx.meta.get(_meta_key(cls), {}))


def flag_name(key: str) -> str:
    """Return the option of a setting: `degradation.blur_prob` is `--degradation-blur-prob`."""
    return "--" + key.replace(".", "-").replace("_", "-")


def _meta_key(cls: type) -> str:
    return f"{_META}.{cls.__module__}.{cls.__qualname__}"


def _option(cls: type, setting: Setting, short: Sequence[str]) -> Decorator:
    name = flag_name(setting.key)
    is_flag = setting.type is bool
    is_list = get_origin(setting.type) is tuple and ... in get_args(setting.type)
    if is_flag and setting.default is not False:
        name = f"{name}/--no-{name.removeprefix('--')}"

    def keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        source = ctx.get_parameter_source(param.name) if param.name else None
        if source not in (None, click.core.ParameterSource.DEFAULT):
            if is_list:  # every time it is given adds to it
                value = tuple(item for part in value for item in part)
            ctx.meta.setdefault(_meta_key(cls), {})[setting.key] = value

    # The parameter's own name keeps clear of a command's arguments.
    decls = [*short, name, "setting_" + setting.key.replace(".", "_")]
    return click.option(
        *decls,
        is_flag=is_flag or None,
        multiple=is_list,
        default=False if is_flag else None,
        type=click.BOOL if is_flag else SettingType(setting),
        callback=keep,
        expose_value=False,
        help=help_text(setting),
    )


def help_text(setting: Setting) -> str:
    """Return the help of a setting with its limits and default."""
    notes = [text for text in (setting.limits.describe(), _default_text(setting)) if text]
    return setting.limits.help + (f"  [{'; '.join(notes)}]" if notes else "")


def _default_text(setting: Setting) -> str:
    value = setting.default
    if value is None or isinstance(value, bool) or not isinstance(value, (int, float, str, tuple)):
        return "default: on" if value is True else ""
    if isinstance(value, tuple):
        value = ",".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value)
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    return f"default: {shown}" if shown else ""


def _arms(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _can_be_option(kind: Any) -> bool:
    return all(get_origin(arm) is not dict and arm is not Any for arm in _arms(kind))


class SettingType(ParamType):
    """Text of the command line as a value of a setting, within its limits."""

    name = "value"

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def words(self) -> tuple[str, ...]:
        """Return the words that the setting knows; empty if any text is accepted."""
        limits = self.setting.limits.choices or ()
        literals = [
            value
            for arm in _arms(self.setting.type)
            if get_origin(arm) is Literal
            for value in get_args(arm)
        ]
        return tuple(str(word) for word in (*literals, *limits))

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """Return how the value looks, for the help: `auto|INTEGER`, `NUMBER,NUMBER`."""
        if self.setting.limits.size:
            return "SIZE"
        parts = [word for word in self.words() if word]
        if not self.setting.limits.choices:
            parts += [m for arm in _arms(self.setting.type) if (m := _metavar(arm))]
        return "|".join(dict.fromkeys(parts))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert text; a usage error says what was expected."""
        if not isinstance(value, str):
            return value
        try:
            return self.setting.parse(value)
        except ConfigError as error:
            raise click.BadParameter(str(error), ctx, param) from None

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the known words that begin like this; file names for paths."""
        if any(arm is Path for arm in _arms(self.setting.type)):
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(w) for w in self.words() if w.startswith(incomplete)]


def _metavar(arm: Any) -> str:
    if get_origin(arm) is tuple:
        return ",".join("..." if a is Ellipsis else _metavar(a) for a in get_args(arm))
    return {int: "INTEGER", float: "NUMBER", str: "TEXT", Path: "PATH", bool: "yes|no"}.get(arm, "")


class PathType(click.Path):
    """A path; an empty one, which an unset variable of a shell leaves, is refused."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert text; a usage error refuses the empty string."""
        if value == "":
            self.fail("expected a path, got ''", param, ctx)
        return super().convert(value, param, ctx)


class ModelType(ParamType):
    """A model's name or path; completes the registered names."""

    name = "model"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the names of generators that begin like this, or else files."""
        from realesr_cli.weights import registry

        words = ["auto"]
        for entry in registry.entries():
            if entry.kind == "generator":
                words += [entry.name, *entry.aliases]
        found = [CompletionItem(w) for w in words if w.lower().startswith(incomplete.lower())]
        return found or [CompletionItem(incomplete, type="file")]


model_option = click.option(
    "-m",
    "--model",
    type=ModelType(),
    default="auto",
    show_default=True,
    metavar="NAME|PATH",
    help="Model name, .pth or .safetensors file, training run folder, or a mixture of two as "
    "A:B@0.8.",
)
blend_model_option = click.option(
    "--blend-model",
    type=ModelType(),
    metavar="NAME|PATH",
    help="Second model of the same scale, whose image is blended with the first one's.",
)
models_option = functools.partial(
    click.option,
    "-m",
    "--model",
    "models",
    type=ModelType(),
    multiple=True,
    metavar="NAME|PATH",
    help="Model name, .pth or .safetensors file, or training run folder; may be repeated.",
)
offline_option = click.option(
    "--offline",
    is_flag=True,
    default=None,
    help="Never use the network; same as REALESR_OFFLINE=1.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print only errors and warnings.")
verbose_option = click.option("-v", "--verbose", is_flag=True, help="Print more details.")
yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
set_option = click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change any setting, e.g. --set data.patch=64; may be repeated.",
)


def is_folder(output: str) -> bool:
    """Return whether `-o OUTPUT` names a folder: one that exists, or a name ending in a slash."""
    return output.endswith(("/", os.sep)) or Path(output).is_dir()


def check_targets(targets: Sequence[Path], *, overwrite: bool, inputs: Sequence[Path] = ()) -> None:
    """Raise ConfigError where one of these files must not or cannot be written.

    That is a folder, an input, an existing file unless `overwrite`, and a file in a folder that is
    read-only.
    """
    for target in targets:
        try:
            os.lstat(target)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:  # Above all a name that is too long.
            raise ConfigError(f"{target} cannot be written: {error.strerror}") from None
        if os.path.isdir(target):
            raise ConfigError(f"{target} is a folder; name a file in it with -o")
        exists = os.path.exists(target)
        if exists and any(os.path.exists(path) and path.samefile(target) for path in inputs):
            raise ConfigError(f"{target} is an input; write to another file with -o")
        if exists and not overwrite:
            raise ConfigError(f"{target} already exists; replace it with --overwrite")
    check_writable(targets)
