"""Options shared by commands, and click options derived from settings dataclasses."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin

import click
from click.shell_completion import CompletionItem

from realesr_cli.errors import ConfigError
from realesr_cli.settings import Limits, Setting, from_plain, merge, to_plain, walk

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
    """A decorator that adds one option for every setting of a dataclass.

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
    """The settings object of a command: defaults (or `base`), with the given options on top.

    Raises ConfigError where a value lies outside its limits.
    """
    given = given_settings(ctx, cls)
    if base is None:
        return from_plain(cls, given)
    return from_plain(cls, merge(to_plain(base), given))


def given_settings(ctx: click.Context, cls: type) -> dict[str, Any]:
    """Only what the user gave on the command line, as nested plain data."""
    result: dict[str, Any] = {}
    found: dict[str, Any] = ctx.meta.get(_meta_key(cls), {})
    for key, value in found.items():
        nested = to_plain(value)
        for part in reversed(key.split(".")):
            nested = {part: nested}
        result = merge(result, nested)
    return result


def flag_name(key: str) -> str:
    """The option of a setting: `degradation.blur_prob` is `--degradation-blur-prob`."""
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
    """The help of a setting with its limits and default."""
    notes = [text for text in (_range_text(setting.limits), _default_text(setting)) if text]
    return setting.limits.help + (f"  [{'; '.join(notes)}]" if notes else "")


def _range_text(limits: Limits) -> str:
    ends = (limits.low, limits.high, limits.above)
    # As they stand in the code: the short form of a million would be 1e+06.
    low, high, above = (None if x is None else f"{x:.15g}" for x in ends)
    if low is not None and high is not None:
        return f"{low} to {high}"
    if above is not None:
        return f"above {above}" + (f", at most {high}" if high is not None else "")
    if low is not None:
        return f"at least {low}"
    return f"at most {high}" if high is not None else ""


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
    """Text of the command line to a value of a setting's type, within its limits."""

    name = "value"

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def words(self) -> tuple[str, ...]:
        """The words that the setting knows, of its type or its limits; empty if any text goes."""
        limits = self.setting.limits.choices or ()
        literals = [
            value
            for arm in _arms(self.setting.type)
            if get_origin(arm) is Literal
            for value in get_args(arm)
        ]
        return tuple(str(word) for word in (*literals, *limits))

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """How the value looks, for the help: `auto|INTEGER`, `NUMBER,NUMBER`."""
        return self._shape()

    def _shape(self) -> str:
        parts = [word for word in self.words() if word]
        if not self.setting.limits.choices:
            parts += [m for arm in _arms(self.setting.type) if (m := _metavar(arm))]
        return "|".join(dict.fromkeys(parts))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Text to the setting's type; a usage error names what was expected."""
        if not isinstance(value, str):
            return value
        reasons: list[str] = []
        for arm in _arms(self.setting.type):
            try:
                converted = _parse(arm, value)
            except ValueError:
                continue
            try:
                return self._checked(converted)
            except ConfigError as error:
                reasons.append(str(error))
        reasons.append(f"{value!r} is not {self._shape()}")
        raise click.BadParameter(reasons[0], ctx, param)

    def _checked(self, value: Any) -> Any:
        limits = self.setting.limits
        for item in value if isinstance(value, tuple) else (value,):
            if limits.choices is not None and item not in limits.choices:
                raise ConfigError(f"{item!r} is not one of {', '.join(map(str, limits.choices))}")
            if isinstance(item, (int, float)) and not isinstance(item, bool):
                below = limits.low is not None and item < limits.low
                under = limits.above is not None and item <= limits.above
                over = limits.high is not None and item > limits.high
                if below or under or over or item != item:
                    raise ConfigError(f"{item:.15g}: must be {_range_text(limits) or 'a number'}")
        return value

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The known words that begin like this; file names for paths."""
        if any(arm is Path for arm in _arms(self.setting.type)):
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(w) for w in self.words() if w.startswith(incomplete)]


def _metavar(arm: Any) -> str:
    if get_origin(arm) is tuple:
        return ",".join("..." if a is Ellipsis else _metavar(a) for a in get_args(arm))
    return {int: "INTEGER", float: "NUMBER", str: "TEXT", Path: "PATH", bool: "yes|no"}.get(arm, "")


def _parse(arm: Any, text: str) -> Any:
    """Text as one arm of a type; ValueError if it is not of that kind."""
    if arm is type(None):
        if text.lower() != "none":
            raise ValueError(text)
        return None
    if get_origin(arm) is Literal:
        return _look_up({str(value): value for value in get_args(arm)}, text)
    if get_origin(arm) is tuple:
        inner = get_args(arm)
        items = [item.strip() for item in text.split(",") if item.strip()]
        kinds = [inner[0]] * len(items) if Ellipsis in inner else list(inner)
        if len(kinds) != len(items):
            raise ValueError(text)
        return tuple(_parse(kind, item) for kind, item in zip(kinds, items, strict=True))
    if arm is bool:
        return _look_up({"yes": True, "no": False, "true": True, "false": False}, text.lower())
    return arm(text)


def _look_up(known: Mapping[str, Any], text: str) -> Any:
    if text not in known:
        raise ValueError(text)
    return known[text]


class ModelType(ParamType):
    """A model's name or path; completes the registered names."""

    name = "model"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Names of generators, and files."""
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
    help="A model's name, a .pth or .safetensors file, the folder of a training run, or two of "
    "these mixed as A:B@0.8.",
)
blend_model_option = click.option(
    "--blend-model",
    type=ModelType(),
    metavar="NAME|PATH",
    help="A second model of the same scale, whose image is mixed with the first one's.",
)
models_option = functools.partial(
    click.option,
    "-m",
    "--model",
    "models",
    type=ModelType(),
    multiple=True,
    metavar="NAME|PATH",
    help="A model's name, a .pth or .safetensors file, or the folder of a training run; may be "
    "repeated.",
)
offline_option = click.option(
    "--offline",
    is_flag=True,
    default=None,
    help="Never use the network (as REALESR_OFFLINE=1 does).",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Machine-readable JSON on stdout."
)
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Only errors and warnings.")
verbose_option = click.option("-v", "--verbose", is_flag=True, help="Tell more about each step.")
yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")
set_option = click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change any setting, as in --set data.patch=64; may be repeated.",
)
