"""Train the bundled model `photo` again, from the pictures to the file in the package.

    python models/photo/make.py --data PHOTOGRAPHS/

Takes four to five hours of one processor core. Every step is a command of `realesr` and is printed
before it runs; a step that is finished is passed over, and a stopped training goes on. The file is
the same to the bit only with the same versions, fonts and number of threads; MODEL_CARD.md names
those of the file in the package.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from realesr_cli.nets.compact import Compact
from realesr_cli.nets.grain import sow
from realesr_cli.weights.files import load_model, model_metadata, save_safetensors

HERE = Path(__file__).resolve().parent

SHARE = 1.28
"""Of the grain's learned strength; chosen by the figures, see MODEL_CARD.md."""

FORK, FORK_SEED = 5000, 131
"""Where the second run of the fourth stage leaves the first, and the seed of its pictures."""

LAST_SEED = 52
"""Of the pictures of the second run of the last stage."""

Words = list[str | Path]

TRIAL: Words = ["--iters", "10", "--set", "data.patch=16", "--set", "data.batch=2",
                "--set", "checkpoints.every=5"]  # fmt: skip
"""Every stage in a few seconds, to see that the script runs."""

TRIAL_FORK = 5


def run(*words: str | Path) -> None:
    """One command, shown first; stops the script where it fails."""
    line = [str(word) for word in words]
    print("+", shlex.join(line), flush=True)
    subprocess.run(line, check=True)


def realesr(*words: str | Path) -> None:
    """One command of this package, of the Python that runs the script."""
    run(sys.executable, "-m", "realesr_cli", *words)


def train(name: str, out: Path, words: Words, *, recipe: str = "") -> Path:
    """A run of a recipe beside this file, gone on with if it is there; its network."""
    folder = out / name
    resume = ["--resume"] if (folder / "config.toml").exists() else []
    realesr("train", *words, "--recipe", HERE / f"{recipe or name}.toml", "--out", folder, *resume)
    return folder / "generator.safetensors"


def fork(out: Path, words: Words, step: int) -> Path:
    """The fourth stage once more from a step on, with other pictures; its network."""
    folder, saved = out / "4-grain-fork", f"1-psnr-{step:09}.pt"
    if not (folder / "config.toml").exists():
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        shutil.copy(out / "4-grain/checkpoints" / saved, folder / "checkpoints")
        shutil.copy(out / "4-grain/config.toml", folder)
    changed: Words = ["--set", f"seed={FORK_SEED}", "--accept-changes"]
    return train(folder.name, out, [*words, *changed], recipe="4-grain")


def mix(paths: list[Path], target: Path) -> Path:
    """The mean of networks, with its grain at SHARE, as a file."""
    nets = [load_model(path) for path in paths]
    states = [net.state_dict() for net in nets]
    mean = nets[0]
    assert isinstance(mean, Compact)
    mean.load_state_dict({k: torch.stack([s[k] for s in states]).mean(0) for k in states[0]})
    sow(mean, SHARE)
    save_safetensors(target, mean.state_dict(), model_metadata(mean.architecture))
    return target


def main() -> None:
    """From photographs to photo.safetensors in the output folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--val-gt", type=Path, help="pictures to validate with")
    parser.add_argument("--val-lq", type=Path, help="their low-quality versions")
    parser.add_argument("--out", type=Path, default=Path("runs/photo"))
    parser.add_argument("--trial", action="store_true", help="ten steps of each stage")
    given = parser.parse_args()
    out: Path = given.out
    out.mkdir(parents=True, exist_ok=True)

    smaller, drawn = out / "smaller", out / "drawn"
    sizes = ["--scales", "0.5,0.333333,0.25", "--no-original", "--shortest", "0", "--side", "0"]
    realesr("dataset", "prepare", given.data, "-o", smaller, *sizes)
    realesr("dataset", "draw", "-o", drawn, "--seed", "0", "--size", "768",
            "--count", "4" if given.trial else "300")  # fmt: skip

    check: Words = TRIAL if given.trial else []
    if given.val_gt:
        check = [*check, "--val", given.val_gt, "--set", f"validation.lq={given.val_lq}"]
    both: Words = ["--data", smaller, "--data", drawn, "--set", "data.weights=[0.85,0.15]", *check]
    start = train("1-start", out, ["--data", given.data, *check])
    structure = train("2-structure", out, [*both, "--init", start])
    grid = train("3-grid", out, [*both, "--init", structure])
    words: Words = [*both, "--init", grid]
    runs = [train("4-grain", out, words), fork(out, words, TRIAL_FORK if given.trial else FORK)]
    words = [*both, "--init", mix(runs, out / "4-mean.safetensors")]
    again: Words = ["--set", f"seed={LAST_SEED}"]
    runs = [train("5-grain", out, words), train("5-again", out, [*words, *again], recipe="5-grain")]
    mixed = mix(runs, out / "photo-mixed.safetensors")
    realesr("export", mixed, "--to", "half", "--license", "BSD-3-Clause",
            "-o", out / "photo.safetensors", "--overwrite")  # fmt: skip


if __name__ == "__main__":
    main()
