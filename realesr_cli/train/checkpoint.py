"""Checkpoints: everything a run needs to continue bit-exactly, written atomically."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from realesr_cli.atomic import atomic_path, write_errors
from realesr_cli.errors import (
    CheckpointFormatError,
    ConfigError,
    RealesrWarning,
    WeightsWriteError,
)
from realesr_cli.settings import from_plain, to_plain
from realesr_cli.text import format_value
from realesr_cli.train.config import TrainConfig
from realesr_cli.train.state import TrainProgress, TrainState
from realesr_cli.weights.checkpoints import find_format
from realesr_cli.weights.locate import RUN_FILE
from realesr_cli.weights.model_files import model_metadata, save_pth, save_safetensors

FORMAT = 2
FOLDER = "checkpoints"
BEST = "best.pt"
SUFFIX = ".pt"

# The folders of a path, or of both paths of a mixture `runs/a:runs/b@0.5`.
_FOLDERS = re.compile(r"(?:(?<![^:])[A-Za-z]:(?=[\\/]))?[^:]*[\\/](?=[^:@\\/])")

_PARTS = (
    "generator",
    "ema",
    "optimizer",
    "scaler",
    "discriminator",
    "d_optimizer",
    "d_scaler",
    "pool",
)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory: configuration and progress of the run, and the state of its parts."""

    path: Path
    config: TrainConfig
    progress: TrainProgress
    parts: Mapping[str, Any]


def checkpoint_path(out: Path, config: TrainConfig, progress: TrainProgress) -> Path:
    """Return the path of the checkpoint at this progress; names sort by age."""
    name = config.stages[progress.stage].name
    return out / FOLDER / f"{progress.stage + 1}-{name}-{progress.step:09d}{SUFFIX}"


def save_checkpoint(out: Path, state: TrainState, config: TrainConfig) -> Path:
    """Write the state atomically and return the path.

    Raises WeightsWriteError, naming the newest older checkpoint, where it cannot be written.
    """
    path = checkpoint_path(out, config, state.progress)
    data: dict[str, Any] = {
        "format": FORMAT,
        "config": json.dumps(to_plain(config)),
        "progress": json.dumps(state.progress.plain()),
    }
    for part in _PARTS:
        holder = getattr(state, part)
        if holder is not None:
            data[part] = holder.state_dict()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as file:
            torch.save(data, file)
    except (OSError, RuntimeError) as error:  # torch's zip writer raises RuntimeError
        older = [p.name for p in list_checkpoints(out) if p != path]
        kept = f"{older[-1]} is unchanged" if older else "there is no older one"
        raise WeightsWriteError(
            f"{path}: the checkpoint cannot be written ({error}); {kept}", advice="resume-later"
        ) from error
    return path


def list_checkpoints(out: Path) -> list[Path]:
    """Return the checkpoints of a run, oldest first, without the copy of the best one."""
    return sorted(p for p in (out / FOLDER).glob(f"[0-9]*{SUFFIX}"))


def mark_best(path: Path) -> None:
    """Keep this checkpoint as the best one, independent of pruning."""
    best = path.with_name(BEST)
    with write_errors(best, WeightsWriteError), atomic_path(best) as part:
        try:
            part.unlink()
            os.link(path, part)
        except OSError:
            # Not every file system has hard links.
            shutil.copyfile(path, part)


def set_aside(out: Path, first: Path) -> None:
    """Rename checkpoints from this one on, so that no run resumes from them."""
    for path in list_checkpoints(out):
        if path.name >= first.name:
            path.rename(path.with_name(f"diverged-{path.name}"))


def prune_checkpoints(out: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints; the best one has a name of its own."""
    for path in list_checkpoints(out)[:-keep]:
        path.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; no code in the file is ever run.

    Raises CheckpointFormatError where it is damaged, or not a checkpoint of this version.
    """
    try:
        if find_format(path) != "zip":  # refuses archives that unpack to much more, too
            raise CheckpointFormatError(f"{path}: not a training checkpoint")
        data = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise CheckpointFormatError(f"{path}: not a checkpoint that this version can read")
        config = from_plain(TrainConfig, json.loads(data["config"]))
        progress = from_plain(TrainProgress, json.loads(data["progress"]))
        config.stages[progress.stage]
    except CheckpointFormatError:
        raise
    except Exception as error:  # torch raises whatever the damaged bytes lead it to
        known = isinstance(error, (OSError, ConfigError))
        reason = " ".join(str(error).split())[:200] if known else "the file is damaged"
        if isinstance(error, MemoryError):
            reason = "it is damaged, or larger than the memory"
        raise CheckpointFormatError(f"{path}: cannot be read: {reason}") from error
    parts = {part: data[part] for part in _PARTS if part in data}
    return Checkpoint(path, config, progress, parts)


def find_checkpoint(out: Path) -> Checkpoint | None:
    """Read the newest checkpoint of a run, or None if it has none.

    A damaged one is skipped with a warning, and an older one is read. Raises CheckpointFormatError
    if all are damaged.
    """
    damaged: list[CheckpointFormatError] = []
    best = [path for path in (out / FOLDER / BEST,) if path.is_file()]
    for path in [*reversed(list_checkpoints(out)), *best]:
        try:
            found = read_checkpoint(path)
        except CheckpointFormatError as error:
            damaged.append(error)
            continue
        for problem in damaged:
            warnings.warn(f"{problem}; using {path.name}", RealesrWarning, stacklevel=2)
        return found
    if damaged:
        raise damaged[0]
    return None


def restore(state: TrainState, checkpoint: Checkpoint) -> None:
    """Load a checkpoint into a state of the same run; CheckpointFormatError if it does not fit."""
    path, parts = checkpoint.path, checkpoint.parts
    held = {part for part in _PARTS if getattr(state, part) is not None}
    # A scaler comes and goes with the precision; a new one finds its scale again.
    different = (held ^ set(parts)) - {"scaler", "d_scaler"}
    if different:
        listed = ", ".join(sorted(different))
        raise CheckpointFormatError(f"{path}: does not fit this run, which differs in {listed}")
    try:
        for part in held & set(parts):
            getattr(state, part).load_state_dict(parts[part])
    except Exception as error:  # parts of a foreign file can be anything
        reason = format_value(" ".join(str(error).split()))
        raise CheckpointFormatError(f"{path}: does not fit this run: {reason}") from error
    state.progress = dataclasses.replace(checkpoint.progress)


def hash_state(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names and values, which identifies a training result."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _without_paths(plain: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration for publication: without the folders of this machine."""
    public = copy.deepcopy(plain)
    for part in ("data", "validation"):
        for key in ("gt", "lq"):
            del public[part][key]
    public["validation"]["feat_weights"] = Path(public["validation"]["feat_weights"]).name
    for part in (public["generator"], public["discriminator"]):
        part["init"] = _FOLDERS.sub("", part["init"])
    for stage in public["stages"]:
        stage["distill"]["teacher"] = _FOLDERS.sub("", stage["distill"]["teacher"])
        stage["perceptual"]["weights"] = Path(stage["perceptual"]["weights"]).name
    return public


def save_generator(out: Path, state: TrainState, config: TrainConfig) -> Path:
    """Write the averaged generator as the run's model, with its description; `.pth` too if set.

    Raises WeightsWriteError where it cannot be written.
    """
    weights = state.averaged.state_dict()
    stage = config.stages[state.progress.stage]
    extra = {
        "recipe": config.recipe,
        "stage": stage.name,
        "step": state.progress.step,
        "hash": hash_state(weights),
        "scores": state.progress.best,
        "training": _without_paths(to_plain(config)),
    }
    path = out / RUN_FILE
    save_safetensors(path, weights, model_metadata(config.architecture, extra))
    if config.checkpoints.pth:
        both = {"params": state.generator.state_dict(), "params_ema": weights}
        save_pth(path.with_suffix(".pth"), both)
    return path
