"""A model's description in the form of OpenModelDB, the public list of upscaling models.

Source: the type `Model` in src/lib/schema.ts of github.com/OpenModelDB/open-model-database.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realesr_cli.errors import ConfigError
from realesr_cli.settings import check, option
from realesr_cli.text import format_value
from realesr_cli.weights.registry import UNKNOWN

if TYPE_CHECKING:
    from realesr_cli.weights.provenance import ModelInfo

REQUIRED = ("name", "author", "license", "tags", "description", "date")
"""What only a person may know, and the list requires of every model."""

_ID = re.compile(r"[a-zA-Z0-9]+(?:-[a-zA-Z0-9]+)*")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_SPDX_WORD = re.compile(r"[A-Za-z0-9.+-]+")


@dataclass(frozen=True)
class CardSettings:
    """What only a person knows of a model."""

    name: str | None = option(None, help="Name in the card; default: the model's own.")
    author: tuple[str, ...] = option(
        (), help="Author's id, letters, digits and hyphens; may be repeated."
    )
    license: str | None = option(None, help="SPDX expression, e.g. MIT or CC-BY-4.0.")
    description: str | None = option(None, help="What the model is for, in Markdown.")
    tag: tuple[str, ...] = option((), help="Subject, e.g. photo or anime; may be repeated.")
    date: str | None = option(None, help="Date of publication, YYYY-MM-DD.")

    def __post_init__(self) -> None:
        check(self)
        for label, words in (("author", self.author), ("tag", self.tag)):
            for word in words:
                if _ID.fullmatch(word) is None:
                    near = "-".join(re.findall(r"[a-zA-Z0-9]+", word)).lower()
                    raise ConfigError(
                        f"{label}: expected letters, digits and single hyphens"
                        f"{f', as in {near}' if near else ''}, got {format_value(word)}"
                    )
        require_spdx(self.license)
        if self.date is not None and not _is_date(self.date):
            raise ConfigError(f"date: expected YYYY-MM-DD, got {format_value(self.date)}")
        for label, text in (("name", self.name), ("description", self.description)):
            if text is not None and not text.strip():
                raise ConfigError(f"{label}: must not be empty")


def require_spdx(license: str | None) -> None:
    """Raise ConfigError where a given license is not an SPDX expression."""
    if license is not None and not is_spdx(license):
        raise ConfigError(
            "license: expected an SPDX expression such as MIT or CC-BY-4.0 (spdx.org/licenses), "
            f"got {format_value(license)}"
        )


def is_spdx(text: str) -> bool:
    """Return whether a text has the form of an SPDX expression (`MIT`, `MIT AND (A OR B)`)."""
    words = text.replace("(", " ").replace(")", " ").split()
    joined = {"AND", "OR", "WITH"}
    alternates = all((word in joined) == bool(place % 2) for place, word in enumerate(words))
    fits = all(_SPDX_WORD.fullmatch(word) for word in words)
    return bool(len(words) % 2) and alternates and fits and UNKNOWN not in words


def _is_date(text: str) -> bool:
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        return False
    return _DATE.fullmatch(text) is not None


def make_card(
    info: ModelInfo,
    settings: CardSettings = CardSettings(),
    resources: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return the card of a generator as plain data for JSON.

    Only what is known is in it: an unknown license is null, and other unknown fields are left
    out, as the schema allows no null there; `missing_fields` lists them. `resources` are the files
    to offer, by default the model's own.
    """
    from realesr_cli.nets.detection import architecture_from_plain  # here, because it loads torch

    architecture = architecture_from_plain(info.architecture)
    name, size = architecture.card
    license = settings.license or (info.license if is_spdx(info.license) else None)
    author = settings.author[0] if len(settings.author) == 1 else list(settings.author)
    card = {
        "name": settings.name or info.name,
        "author": author,
        "license": license,
        "tags": list(settings.tag),
        "description": settings.description or info.about,
        "date": settings.date,
        "architecture": name,
        "size": list(size),
        "scale": info.scale,
        "inputChannels": architecture.in_channels,
        "outputChannels": architecture.out_channels,
        **_training(info.recorded, info.scale or 1),
        "resources": _own_resources(info) if resources is None else list(map(dict, resources)),
        "images": [],
    }
    left_out = {key for key in ("author", "description", "date") if not card[key]}
    return {key: value for key, value in card.items() if key not in left_out}


def missing_fields(card: Mapping[str, Any]) -> list[str]:
    """Return the fields that the list requires and the card lacks."""
    return [key for key in REQUIRED if not card.get(key)]


def resource(path: Path | None, size: int | None, sha256: str | None) -> dict[str, Any]:
    """Describe a file that a card offers; its addresses are for whoever publishes it."""
    suffix = "" if path is None else path.suffix.lower()
    kind = {".onnx": "onnx", ".safetensors": "safetensors"}.get(suffix, "pth")
    platform = "onnx" if kind == "onnx" else "pytorch"
    return {"platform": platform, "type": kind, "size": size, "sha256": sha256, "urls": []}


def _own_resources(info: ModelInfo) -> list[dict[str, Any]]:
    if info.path is None and not info.urls:  # a mixture has no file
        return []
    path = info.path or Path(info.urls[0])
    return [{**resource(path, info.bytes, info.sha256), "urls": list(info.urls)}]


def _training(recorded: Mapping[str, Any], scale: int) -> dict[str, Any]:
    """Return what a run of this package recorded of the training."""
    training, step = recorded.get("training"), recorded.get("step")
    if not isinstance(training, Mapping) or not isinstance(step, int):
        return {}
    data = training["data"]
    names = [stage["name"] for stage in training["stages"]]
    before = training["stages"][: names.index(recorded["stage"])]
    return {
        "trainingIterations": sum(stage["iterations"] for stage in before) + step,
        "trainingBatchSize": data["batch"] * data["accumulate"],
        "trainingHRSize": data["patch"] * scale,
    }
