"""Train the bundled model `photo` again, from the pictures to the file in the package.

    pip install h5py
    python models/photo/make.py --data PHOTOGRAPHS/ --squeezenet squeezenet1_1_keras_notop.h5

Takes about three hours on two processor cores. Every step is a command of `realesr` and is printed
before it runs; a step that is finished is passed over, and a stopped training goes on. The file is
the same to the bit only with the same versions, fonts and number of threads; MODEL_CARD.md names
those of the file in the package.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from realesr_cli.weights.files import load_model, model_metadata, save_safetensors

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Stage:
    """One run of 3-gan.toml: what it starts from, and what differs from the recipe.

    `start` are networks of earlier stages with their shares in its start, `judge` the stage whose
    discriminator it goes on with.
    """

    name: str
    start: dict[str, float]
    judge: str
    iterations: int
    lr: tuple[float, float, float]
    """Of the generator at first, at last (a cosine), and of the discriminator at first."""
    settings: tuple[str, ...] = ()

    def assignments(self) -> list[str]:
        """What differs, as `realesr train --set` takes it."""
        first, last, judge = self.lr
        return [
            f"stages.gan.iterations={self.iterations}", f"stages.gan.optimiser.lr={first}",
            f"stages.gan.schedule.lowest={last}",
            f"stages.gan.optimiser.discriminator_lr={judge}",
            *(["stages.gan.gan.warmup=0"] if self.judge else []),
            *self.settings,
        ]  # fmt: skip


def weights(gan: float, structure: float, grid: float) -> tuple[str, ...]:
    """The weights of three losses."""
    return (
        f"stages.gan.gan.weight={gan}",
        f"stages.gan.structure.weight={structure}",
        f"stages.gan.grid.weight={grid}",
    )


STAGES = (
    Stage("3-gan", {"2-structure": 1}, "", 1792, (2e-4, 1.9e-4, 4e-4)),
    Stage("4-gan", {"3-gan": 1}, "3-gan", 875, (6e-5, 5.4e-5, 2e-4), ("seed=3",)),
    Stage("5-gan", {"4-gan": 1}, "4-gan", 1605, (1e-4, 6.7e-5, 3e-4),
          ("seed=4", "stages.gan.gan.weight=0.03")),
    Stage("6-grid", {"2-structure": 0.25, "5-gan": 0.75}, "5-gan", 2163, (6e-5, 7.8e-6, 2e-4),
          ("seed=6", "ema.decay=0.996", *weights(0.02, 0.5, 0.1))),
    Stage("7-grid", {"2-structure": 0.35, "6-grid": 0.65}, "6-grid", 300, (4e-5, 3e-5, 2e-4),
          ("seed=8", "ema.decay=0.995", *weights(0.008, 0.8, 0.1))),
    Stage("8-a", {"7-grid": 0.38, "4-gan": 0.38, "5-gan": 0.24}, "7-grid", 220,
          (1e-4, 3e-5, 2e-4), ("seed=9", "ema.decay=0.99", *weights(0.015, 0.5, 0.5))),
    Stage("8-b", {"7-grid": 1}, "7-grid", 220, (1e-4, 3e-5, 2e-4),
          ("seed=10", "ema.decay=0.99", *weights(0.015, 0.5, 0.2))),
    Stage("9-a", {"8-a": 1}, "8-a", 200, (6e-5, 1e-6, 2e-4),
          ("seed=11", "ema.decay=0.97", *weights(0.002, 0.8, 0.3))),
    Stage("9-b", {"8-b": 1}, "8-b", 200, (6e-5, 1e-6, 2e-4),
          ("seed=11", "ema.decay=0.97", *weights(0.004, 0.8, 0.3))),
)  # fmt: skip
"""In order; found by trying, see MODEL_CARD.md."""

LAST = {"9-a": 0.35, "9-b": 0.35, "8-a": 0.15, "8-b": 0.15}
"""The shares in the file."""


def run(*words: str | Path) -> None:
    """One command, shown first; stops the script where it fails."""
    line = [str(word) for word in words]
    print("+", shlex.join(line), flush=True)
    subprocess.run(line, check=True)


def realesr(*words: str | Path) -> None:
    """One command of this package, of the Python that runs the script."""
    run(sys.executable, "-m", "realesr_cli", *words)


def train(name: str, out: Path, words: list[str | Path], *, recipe: str = "") -> Path:
    """A run of a recipe beside this file, gone on with if it is there; its network."""
    folder = out / name
    resume = ["--resume"] if (folder / "config.toml").exists() else []
    realesr("train", *words, "--recipe", HERE / f"{recipe or name}.toml", "--out", folder, *resume)
    return folder / "generator.safetensors"


def main() -> None:
    """From photographs to photo.safetensors in the output folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--squeezenet", type=Path, required=True, help="Keras file of SqueezeNet")
    parser.add_argument("--val-gt", type=Path, help="pictures to validate with")
    parser.add_argument("--val-lq", type=Path, help="their low-quality versions")
    parser.add_argument("--out", type=Path, default=Path("runs/photo"))
    given = parser.parse_args()
    out: Path = given.out
    out.mkdir(parents=True, exist_ok=True)

    smaller, drawn, features = out / "smaller", out / "drawn", out / "squeezenet1_1.safetensors"
    sizes = ["--scales", "0.5,0.333333,0.25", "--no-original", "--shortest", "0", "--side", "0"]
    realesr("dataset", "prepare", given.data, "-o", smaller, *sizes)
    realesr("dataset", "draw", "-o", drawn, "--count", "300", "--seed", "0", "--size", "768")
    if not features.exists():
        convert = HERE.parents[1] / "tools/convert_squeezenet.py"
        run(sys.executable, convert, given.squeezenet, features)

    check: list[str | Path] = []
    if given.val_gt:
        check = ["--val", given.val_gt, "--set", f"validation.lq={given.val_lq}"]
    both = ["--data", smaller, "--data", drawn, "--set", "data.weights=[0.85,0.15]", *check]
    start = train("1-start", out, ["--data", given.data, *check])
    structure = train("2-structure", out, [*both, "--init", start])
    networks = {"2-structure": structure}
    photos = ["--data", smaller, *check, "--set", f"stages.gan.perceptual.weights={features}"]
    for stage in STAGES:
        networks[stage.name] = adversarial(stage, out, networks, photos)
    mixed = mix(LAST, networks, out / "photo-mixed.safetensors")
    realesr("export", mixed, "--to", "half", "--license", "BSD-3-Clause",
            "-o", out / "photo.safetensors", "--overwrite")  # fmt: skip


def mix(shares: dict[str, float], networks: dict[str, Path], target: Path) -> Path:
    """The weighted mean of networks as a file; the shares sum to one."""
    nets = {name: load_model(networks[name]) for name in shares}
    states = {name: net.state_dict() for name, net in nets.items()}
    first = next(iter(nets.values()))
    mean = {
        key: sum(share * states[name][key] for name, share in shares.items())
        for key in first.state_dict()
    }
    save_safetensors(target, mean, model_metadata(first.architecture))
    return target


def adversarial(stage: Stage, out: Path, networks: dict[str, Path], data: list[str | Path]) -> Path:
    """One of the adversarial stages; its network."""
    start = mix(stage.start, networks, out / f"{stage.name}-start.safetensors")
    judge: list[str | Path] = []
    if stage.judge:
        judge = ["--init-d", discriminator(out / stage.judge, out / f"{stage.judge}-d.safetensors")]
    settings = [word for setting in stage.assignments() for word in ("--set", setting)]
    return train(stage.name, out, [*data, "--init", start, *judge, *settings], recipe="3-gan")


def discriminator(folder: Path, target: Path) -> Path:
    """The discriminator of a run's newest checkpoint as a file of its own."""
    newest = max((folder / "checkpoints").glob("*-gan-*.pt"), key=lambda p: p.stem)
    # Our own file of a moment ago, which holds more than tensors.
    state = torch.load(newest, map_location="cpu", weights_only=False)["discriminator"]
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, target)
    return target


if __name__ == "__main__":
    main()
