"""`realesr models interpolate`: write mixtures of two networks to files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from realesr_cli.cli.options import (
    ModelType,
    check_targets,
    is_folder,
    json_option,
    offline_option,
    quiet_option,
)
from realesr_cli.cli.terminal import ProgressBar, print_indented_json
from realesr_cli.errors import ConfigError

if TYPE_CHECKING:
    from realesr_cli.weights.locate import Mixture

_FIELD = "{alpha}"


@click.command("interpolate")
@click.argument("first", metavar="A", type=ModelType())
@click.argument("second", metavar="B", type=ModelType())
@click.option(
    "--alpha",
    "alphas",
    type=float,
    multiple=True,
    required=True,
    metavar="NUMBER",
    help="Share of B: 0 is A, 1 is B; may be repeated.  [0 to 1]",
)
@click.option(
    "-o",
    "--output",
    required=True,
    help="File (.safetensors or .pth), name with {alpha} in it, or folder.",
)
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
@offline_option
@quiet_option
@json_option
def interpolate_command(
    first: str,
    second: str,
    alphas: tuple[float, ...],
    output: str,
    overwrite: bool,
    offline: bool | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Mix two networks of one architecture: (1 - alpha) A + alpha B for every weight.

    Meant for networks of one training, such as before and after its adversarial stage: the mixture
    goes smoothly from A's images to B's. `-m A:B@0.8` of other commands does the same without a
    file.

    \b
    realesr models interpolate RealESRNet_x4plus x4plus --alpha 0.8 -o mixed.safetensors
    realesr models interpolate wdn general --alpha 0.3 --alpha 0.6 -o 'general-{alpha}.pth'
    """
    from realesr_cli.weights.load import open_pair, save_mixture
    from realesr_cli.weights.locate import locate_mixture

    mixtures: list[Mixture] = []
    names = []
    for alpha in alphas:
        located = locate_mixture(first, second, alpha)
        assert located.mixture is not None
        mixtures.append(located.mixture)
        names.append(located.name)
    targets = _choose_targets(output, alphas, names)
    sources = [p.path for p in (mixtures[0].first, mixtures[0].second) if p.path is not None]
    check_targets(targets, overwrite=overwrite, inputs=sources)
    with ProgressBar("models", bytes=True, enabled=not quiet) as progress:
        pair = open_pair(mixtures[0], offline=offline, progress=progress)
    written = []
    for mixture, target in zip(mixtures, targets, strict=True):
        save_mixture(pair, mixture, target)
        written.append(
            {
                "path": str(target),
                "alpha": mixture.alpha,
                "first": mixture.first.name,
                "second": mixture.second.name,
            }
        )
        if not quiet and not as_json:
            click.echo(_format_mixture(mixture, target))
    if as_json:
        network = pair[0].architecture.describe()
        print_indented_json({"network": network, "written": written})


def _choose_targets(output: str, alphas: Sequence[float], names: Sequence[str]) -> list[Path]:
    """Return one file per share, all different."""
    from realesr_cli.weights.load import MIXTURE_SUFFIXES, check_mixture_suffix
    from realesr_cli.weights.locate import alpha_label

    twice = next((a for a in alphas if alphas.count(a) > 1), None)
    if twice is not None:
        raise ConfigError(f"--alpha {alpha_label(twice)} is given twice")
    if is_folder(output):
        return [Path(output) / f"{name}{MIXTURE_SUFFIXES[0]}" for name in names]
    if len(alphas) > 1 and _FIELD not in output:
        raise ConfigError(
            f"-o {output}: one file for {len(alphas)} shares; put {_FIELD} into the name, as in "
            f"mixed-{_FIELD}{MIXTURE_SUFFIXES[0]}, or give a folder (end it with a slash)"
        )
    targets = [Path(output.replace(_FIELD, alpha_label(alpha))) for alpha in alphas]
    for target in targets:
        check_mixture_suffix(target)
    return targets


def _format_mixture(mixture: Mixture, target: Path) -> str:
    from realesr_cli.weights.locate import alpha_label

    first, second = (alpha_label(share) for share in mixture.shares)
    return f"{target}: {first} of {mixture.first.name} and {second} of {mixture.second.name}"
