"""Train the bundled model `photo` again, from the pictures to the file in the package.

    python models/photo/make.py --data PHOTOGRAPHS/

Takes seven to eight hours of one processor core. Every step is a command of `realesr` and is
printed before it runs; a step that is finished is passed over, and a stopped training goes on. The
file is the same to the bit only with the same versions, fonts and number of threads; MODEL_CARD.md
names those of the file in the package.
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

SHARE = 1.55
"""Of the grain's learned strength; chosen by the figures, see MODEL_CARD.md."""

FORK, FORK_SEED = 5000, 131
"""Where the second run of the fourth stage leaves the first, and the seed of its pictures."""

AGAIN = {"5-grain": 52, "6-deeper": 72, "7-deeper": 82}
"""Stages that are run twice from one start, and the seeds of the second runs' pictures."""

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


def twice(name: str, out: Path, words: Words, start: Path) -> Path:
    """A stage from one start with two seeds; the mean of the two networks."""
    words = [*words, "--init", start]
    first = train(name, out, words)
    again = train(f"{name}-again", out, [*words, "--set", f"seed={AGAIN[name]}"], recipe=name)
    return mix([first, again], out / f"{name}-mean.safetensors")


def pictures(data: Path, out: Path, *, few: bool) -> tuple[Path, Path, Path]:
    """Three folders: photographs made smaller, squares of them that hold detail, drawn pictures."""
    smaller, squares, drawn = out / "smaller", out / "squares", out / "drawn"
    prepare: Words = ["dataset", "prepare", data, "--no-original", "--shortest", "0"]
    realesr(*prepare, "-o", smaller, "--scales", "0.5,0.333333,0.25", "--side", "0")
    cut = ["--side", "320", "--step", "320", "--least-detail", "2.2"]
    realesr(*prepare, "-o", squares, "--scales", "0.5,0.333333,0.25,0.2,0.166667", *cut)
    count = "4" if few else "300"
    realesr("dataset", "draw", "-o", drawn, "--seed", "0", "--size", "768", "--count", count)
    return smaller, squares, drawn


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

    smaller, squares, drawn = pictures(given.data, out, few=given.trial)
    check: Words = TRIAL if given.trial else []
    if given.val_gt:
        check = [*check, "--val", given.val_gt, "--set", f"validation.lq={given.val_lq}"]
    both: Words = ["--data", smaller, "--data", drawn, "--set", "data.weights=[0.85,0.15]", *check]
    start = train("1-start", out, ["--data", given.data, *check])
    structure = train("2-structure", out, [*both, "--init", start])
    grid = train("3-grid", out, [*both, "--init", structure])
    words: Words = [*both, "--init", grid]
    runs = [train("4-grain", out, words), fork(out, words, TRIAL_FORK if given.trial else FORK)]
    mean = twice("5-grain", out, both, mix(runs, out / "4-mean.safetensors"))
    all_three: Words = ["--data", squares, "--data", smaller, "--data", drawn]
    all_three += ["--set", "data.weights=[0.6,0.25,0.15]", *check]
    mean = twice("6-deeper", out, all_three, mean)
    mixed = twice("7-deeper", out, all_three, mean)
    realesr("export", mixed, "--to", "half", "--license", "BSD-3-Clause",
            "-o", out / "photo.safetensors", "--overwrite")  # fmt: skip


if __name__ == "__main__":
    main()
