"""Mixtures of two networks as files of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from realesr_cli.errors import ConfigError
from realesr_cli.nets.architecture import shapes_of
from realesr_cli.nets.detection import match
from realesr_cli.weights import model_files
from realesr_cli.weights.load import ModelFile, pair_sources
from realesr_cli.weights.locate import Mixture
from realesr_cli.weights.provenance import describe_network

ENDINGS = (".safetensors", ".pth")
"""What a mixture can be written as."""


def mixed_state(
    pair: tuple[ModelFile, ModelFile], mixture: Mixture
) -> tuple[model_files.State, dict[str, Any]]:
    """The tensors of a mixture and their description.

    (1 - alpha) a + alpha b in float32; at the ends the file's own tensors, bit by bit and in its
    own number format. Names are the canonical ones. Source: "ESRGAN" (2018), section 3.4.
    """
    alpha = mixture.alpha
    description = describe_network(pair[0].architecture, pair_sources(pair, mixture))
    if alpha in (0, 1):
        end = pair[int(alpha)]
        stored, _ = model_files.read_state(end.path, as_stored=True)
        return match(shapes_of(stored), end.architecture).canonical(stored), description
    return model_files.interpolate(pair[0].state, pair[1].state, alpha), description


def save_mixture(pair: tuple[ModelFile, ModelFile], mixture: Mixture, target: Path) -> None:
    """Write a mixture, whole or not at all, as .safetensors or, by its name, as .pth.

    Raises ConfigError for another ending and WeightsWriteError where it cannot be written.
    """
    check_ending(target)
    model_files.make_folder(target)
    state, description = mixed_state(pair, mixture)
    if target.suffix.lower() == ".pth":
        model_files.save_pth(target, {"params_ema": state}, description)
    else:
        model_files.save_safetensors(target, state, description)


def check_ending(target: Path) -> None:
    """Raise ConfigError where a file's name does not say how the mixture is to be written."""
    if target.suffix.lower() not in ENDINGS:
        found = f"{target.suffix!r} is not" if target.suffix else "it has no ending that is"
        raise ConfigError(f"{target}: {found} one of {', '.join(ENDINGS)}; end the name with one")
