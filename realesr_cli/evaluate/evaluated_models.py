"""The models of a table or a comparison: opened once, with unique names and one scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from realesr_cli.engine.settings import EngineSettings
from realesr_cli.engine.upscaler import Upscaler
from realesr_cli.errors import ConfigError
from realesr_cli.progress import Progress, no_progress
from realesr_cli.weights.load import open_model
from realesr_cli.weights.provenance import WeightsSource


@dataclass(frozen=True)
class EvaluatedModel:
    """A network and its name in the table."""

    name: str
    upscaler: Upscaler
    sources: tuple[WeightsSource, ...] = ()
    """The files of its weights; none for a network that was passed as an `Upscaler`."""

    def describe(self) -> dict[str, Any]:
        """Return what it is and what it runs on, as plain data."""
        policy = self.upscaler.policy
        return {
            "network": self.upscaler.architecture.describe(),
            "scale": self.upscaler.scale,
            "sources": [source.describe() for source in self.sources],
            "device": policy.device,
            "precision": policy.precision,
            "backend": policy.backend,
        }


def open_models(
    models: Sequence[str | Path | Upscaler | EvaluatedModel],
    engine: EngineSettings = EngineSettings(precision="fp32"),
    *,
    scale: int | None = None,
    offline: bool | None = None,
    progress: Progress = no_progress,
) -> tuple[EvaluatedModel, ...]:
    """Open models, each with a name of its own.

    `scale` determines what `auto` is; `progress` counts downloaded bytes. Raises what `open_model`
    and `Upscaler` raise, and ConfigError for a model given twice.
    """
    found: list[EvaluatedModel] = []
    names: list[tuple[str, str]] = []
    for model in models:
        if isinstance(model, EvaluatedModel):
            names.append((model.name, model.name))
            found.append(model)
        elif isinstance(model, Upscaler):
            names.append((model.architecture.kind, f"{model.architecture.kind} {len(found) + 1}"))
            found.append(EvaluatedModel("", model))
        else:
            opened = open_model(model, scale=scale, offline=offline, progress=progress)
            names.append((opened.name, str(model)))
            found.append(EvaluatedModel("", Upscaler(opened.net, engine), opened.sources))
    short = [name for name, _ in names]
    unique = [name if short.count(name) == 1 else long for name, long in names]
    check_unique_names(unique)
    return tuple(replace(one, name=name) for one, name in zip(found, unique, strict=True))


def check_unique_names(names: Sequence[str]) -> None:
    """Raise ConfigError if two rows of a table would have the same name."""
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"two rows would be named {twice}: omit one, or give it another name")


def common_scale(models: Sequence[EvaluatedModel], expected: int | None) -> int | None:
    """Return the scale of all models; ConfigError if they differ from each other or `expected`."""
    scales = {model.upscaler.scale for model in models}
    listed = ", ".join(f"{model.name} x{model.upscaler.scale}" for model in models)
    if len(scales) > 1:
        raise ConfigError(
            f"models of different scales cannot be compared: {listed}; compare those of one scale "
            "at a time"
        )
    if expected is not None and scales - {expected}:
        raise ConfigError(f"scale = {expected}, but the models are: {listed}")
    return scales.pop() if scales else expected
