"""The networks of a table, opened once, each under a name of its own and all of one scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from realesr_cli.engine.settings import EngineSettings
from realesr_cli.engine.upscaler import Upscaler
from realesr_cli.errors import ConfigError
from realesr_cli.weights.load import open_model
from realesr_cli.weights.provenance import WeightsSource

Report = Callable[[int, int], None]
"""report(done, total)"""


@dataclass(frozen=True)
class EvaluatedModel:
    """A network in the table, and what it is called there."""

    name: str
    upscaler: Upscaler
    sources: tuple[WeightsSource, ...] = ()
    """The files its weights are from; none for a network that was given as such."""

    def facts(self) -> dict[str, Any]:
        """What it is and what it runs on, as plain data."""
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
    report: Report | None = None,
) -> tuple[EvaluatedModel, ...]:
    """Networks ready for the table, each under a name of its own.

    `scale` decides what `auto` is; `report` gets the bytes of downloads.

    Raises what `open_model` and `Upscaler` raise, and ConfigError for a model given twice.
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
            opened = open_model(model, scale=scale, offline=offline, report=report)
            names.append((opened.name, str(model)))
            found.append(EvaluatedModel("", Upscaler(opened.net, engine), opened.sources))
    short = [name for name, _ in names]
    unique = [name if short.count(name) == 1 else long for name, long in names]
    check_unique_names(unique)
    return tuple(replace(one, name=name) for one, name in zip(found, unique, strict=True))


def check_unique_names(names: Sequence[str]) -> None:
    """ConfigError where two rows of a table would have the same name."""
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(
            f"two rows would be called {twice}: leave one out, or give it another name"
        )


def common_scale(models: Sequence[EvaluatedModel], wanted: int | None) -> int | None:
    """The scale of all models; ConfigError names those that differ, among them or from `wanted`."""
    scales = {model.upscaler.scale for model in models}
    told = ", ".join(f"{model.name} x{model.upscaler.scale}" for model in models)
    if len(scales) > 1:
        raise ConfigError(
            f"models of different scale cannot be compared: {told}. Take those of one scale at a "
            "time"
        )
    if wanted is not None and scales - {wanted}:
        raise ConfigError(f"--scale {wanted}, but the models are: {told}")
    return scales.pop() if scales else wanted
