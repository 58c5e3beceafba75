"""The record of how a result was made, in its metadata; a later run skips equal ones.

It names the models by their SHA-256 and every setting that changes pixels, defaults omitted, so
that a setting that is added later does not make earlier results look different. Sizes are not part
of it: they are compared in pixels. Nor are device, tile size, batch and threads: a run on another
machine, or with less memory, must be able to finish what one has begun.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any

from realesr_cli.engine.settings import DEFAULT_SHARE, EngineSettings, UpscaleSettings
from realesr_cli.errors import ConfigError
from realesr_cli.image.formats import WriteSettings, find_format
from realesr_cli.settings import from_plain, to_plain
from realesr_cli.text import format_value
from realesr_cli.weights.cache import sha256_of
from realesr_cli.weights.locate import LocatedModel

_MAX_BYTES = 64 * 1024

_SIZES = ("scale", "width", "height", "fit", "max_side")


@dataclass(frozen=True)
class ModelIdentity:
    """The weights of a model, or of one part of a mixture, with its share."""

    name: str
    sha256: str
    """Empty where the registry does not know it and the file is not cached."""
    share: float = 1.0


@dataclass(frozen=True)
class MadeBy:
    """How a result was made; two results with equal records have the same pixels."""

    models: tuple[tuple[ModelIdentity, ...], ...]
    """One model, or two that are blended; of each the parts of its mixture, or the model itself."""
    settings: dict[str, Any]
    """Settings that change pixels, without those that have their default."""
    input_bytes: int = 0
    """Size of the input's file, by which an input that was edited is noticed; 0: unknown."""

    def to_text(self) -> str:
        """Return the record as it is stored."""
        return json.dumps(to_plain(self), ensure_ascii=False, sort_keys=True)


def identify_model(located: LocatedModel) -> tuple[ModelIdentity, ...]:
    """Return the identity of a model's parts; a file that is not registered is hashed."""
    shares = (1.0,) if located.mixture is None else located.mixture.shares
    parts = []
    for part, share in zip(located.parts, shares, strict=True):
        known = None if part.entry is None else part.entry.sha256
        if known is None:
            known = "" if part.path is None else sha256_of(part.path)
        parts.append(ModelIdentity(part.name, known, share))
    return tuple(parts)


def describe_making(
    models: tuple[tuple[ModelIdentity, ...], ...],
    upscale: UpscaleSettings,
    write: WriteSettings,
    *,
    engine: EngineSettings = EngineSettings(),
    input_bytes: int = 0,
) -> MadeBy:
    """Return the record of results made by these models with these settings."""
    settings = _changed(upscale, skip=_SIZES)
    if len(models) > 1:
        settings["blend"] = DEFAULT_SHARE if upscale.blend is None else upscale.blend
    if upscale.back_project:
        settings["back_project_kernel"] = upscale.kernel
    settings |= _changed(engine, only=("precision", "overlap"))
    settings |= _changed(write, skip=("compress_level", "format"))
    if write.format is not None:  # The default quality may change with a version.
        quality = find_format(write.format).default_quality
        settings.setdefault("quality", quality)
        if quality is None or settings["quality"] is None or write.lossless:
            del settings["quality"]
    return MadeBy(models, to_plain(settings), input_bytes)


def _changed(
    settings: Any, *, skip: tuple[str, ...] = (), only: tuple[str, ...] | None = None
) -> dict[str, Any]:
    """Return the settings that do not have their default."""
    return {
        field.name: getattr(settings, field.name)
        for field in fields(settings)
        if field.name not in skip
        and (only is None or field.name in only)
        and getattr(settings, field.name) != field.default
    }


def parse_made_by(text: str | None) -> MadeBy | None:
    """Parse a stored record; None if there is none, or the text is not one."""
    if text is None or len(text) > _MAX_BYTES:
        return None
    try:
        return from_plain(MadeBy, json.loads(text))
    except (ConfigError, ValueError, RecursionError, AttributeError, TypeError):
        return None


def find_differences(found: MadeBy, wanted: MadeBy) -> list[str]:
    """Return how a result was made differently from what is wanted, one phrase each."""
    different = []
    if _identities(found) != _identities(wanted):
        names = [" and ".join(_names(record)) for record in (found, wanted)]
        if names[0] == names[1]:
            different.append(f"another version of {names[0]}")
        else:
            different.append(f"model {names[0]} instead of {names[1]}")
    for key in sorted(found.settings.keys() | wanted.settings.keys()):
        old, new = (
            format_value(record.settings[key]) if key in record.settings else "default"
            for record in (found, wanted)
        )
        if old != new:
            different.append(f"{key} {old} instead of {new}")
    if found.input_bytes and wanted.input_bytes and found.input_bytes != wanted.input_bytes:
        different.append("another version of its input")
    return different


def _identities(record: MadeBy) -> list[list[tuple[str, float]]]:
    return [[(part.sha256 or part.name, part.share) for part in parts] for parts in record.models]


def _names(record: MadeBy) -> list[str]:
    return [
        "+".join(part.name if part.share == 1 else f"{part.share:g} {part.name}" for part in parts)
        for parts in record.models
    ]
