"""Checkpoints: all that a run needs to go on as if it had never stopped, in whole files."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import os
import pickle
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from realesr_cli.atomic import atomic_path
from realesr_cli.errors import CheckpointFormatError, ConfigError, WeightsWriteError
from realesr_cli.settings import from_plain, to_plain
from realesr_cli.train.config import TrainConfig
from realesr_cli.train.state import TrainProgress, TrainState
from realesr_cli.weights.locate import RUN_FILE
from realesr_cli.weights.model_files import model_metadata, save_pth, save_safetensors

FORMAT = 1
FOLDER = "checkpoints"
BEST = "best.pt"
SUFFIX = ".pt"

# Of a path, or of both of a mixture `runs/a:runs/b@0.5`, all before the name.
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


def checkpoint_path(out: Path, config: TrainConfig, progress: TrainProgress) -> Path:
    """Where the checkpoint of this moment goes; names sort by age."""
    name = config.stages[progress.stage].name
    return out / FOLDER / f"{progress.stage + 1}-{name}-{progress.step:09d}{SUFFIX}"


def save_checkpoint(out: Path, state: TrainState, config: TrainConfig) -> Path:
    """Write the state; the file has its name only once it is whole and on the disk.

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
        older = [p.name for p in checkpoints(out) if p != path]
        kept = f"{older[-1]} is kept as it was" if older else "there is no older one"
        raise WeightsWriteError(
            f"{path}: the checkpoint cannot be written ({error}); {kept}. Make room, then go on "
            "with --resume"
        ) from error
    return path


def checkpoints(out: Path) -> list[Path]:
    """The checkpoints of a run, oldest first, the copy of the best one apart."""
    return sorted(p for p in (out / FOLDER).glob(f"[0-9]*{SUFFIX}"))


def mark_best(path: Path) -> None:
    """Keep this checkpoint as the best, whatever is pruned later."""
    best = path.with_name(BEST)
    part = path.with_name(f".{BEST}.{os.getpid()}.tmp")
    try:
        part.unlink(missing_ok=True)
        try:
            os.link(path, part)
        except OSError:
            # Not every file system has hard links.
            shutil.copyfile(path, part)
        os.replace(part, best)
    except OSError as error:
        raise WeightsWriteError(f"{best}: cannot be written ({error}); make room") from error
    finally:
        part.unlink(missing_ok=True)


def prune(out: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints; the best has a name of its own."""
    for path in checkpoints(out)[:-keep]:
        path.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> tuple[TrainConfig, TrainProgress, dict[str, Any]]:
    """Configuration, progress and the state of each part; nothing in the file is ever run.

    Raises CheckpointFormat where it is damaged or no checkpoint of this package.
    """
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise CheckpointFormatError(f"{path}: no checkpoint that this version can resume from")
        config = from_plain(TrainConfig, json.loads(data["config"]))
        progress = from_plain(TrainProgress, json.loads(data["progress"]))
    except CheckpointFormatError:
        raise
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error) if isinstance(error, (OSError, ConfigError)) else "the file is damaged"
        raise CheckpointFormatError(
            f"{path}: cannot be resumed from ({reason}). {_instead(path)}"
        ) from error
    return config, progress, {part: data[part] for part in _PARTS if part in data}


def _instead(path: Path) -> str:
    others = [p.name for p in checkpoints(path.parent.parent) if p != path]
    if (path.parent / BEST).is_file():
        others.append(BEST)
    if not others:
        return "There is no other checkpoint in this run"
    return f"Delete it to resume from an older one; there are {', '.join(others)}"


def restore(
    state: TrainState, progress: TrainProgress, parts: Mapping[str, Any], path: Path
) -> None:
    """Put a checkpoint into a state of the same make; CheckpointFormat where they differ."""
    held = {part for part in _PARTS if getattr(state, part) is not None}
    # A scaler comes and goes with the precision, and a new one finds its scale again.
    odd = (held ^ set(parts)) - {"scaler", "d_scaler"}
    if odd:
        listed = ", ".join(sorted(odd))
        raise CheckpointFormatError(f"{path}: does not fit this run, the two differ in {listed}")
    try:
        for part in held & set(parts):
            holder = getattr(state, part)
            holder.load_state_dict(parts[part])
    except (RuntimeError, ValueError, KeyError) as error:
        raise CheckpointFormatError(f"{path}: does not fit this run ({error})") from error
    for field in dataclasses.fields(TrainProgress):
        setattr(state.progress, field.name, getattr(progress, field.name))


def state_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names and values, which tells two trainings of one architecture apart."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _public(plain: dict[str, Any]) -> dict[str, Any]:
    """A configuration for others to read: nobody else needs the folders of this machine."""
    shared = copy.deepcopy(plain)
    for part in ("data", "validation"):
        for key in ("gt", "lq"):
            del shared[part][key]
    for part in (shared["generator"], shared["discriminator"]):
        part["init"] = _FOLDERS.sub("", part["init"])
    for stage in shared["stages"]:
        stage["perceptual"]["weights"] = Path(stage["perceptual"]["weights"]).name
    return shared


def save_generator(out: Path, state: TrainState, config: TrainConfig) -> Path:
    """Write the averaged generator as the run's model, describing itself; `.pth` too if asked.

    Raises WeightsWriteError where it cannot be written.
    """
    weights = state.ema.state_dict()
    stage = config.stages[state.progress.stage]
    extra = {
        "recipe": config.recipe,
        "stage": stage.name,
        "step": state.progress.step,
        "hash": state_hash(weights),
        "scores": state.progress.best,
        "training": _public(to_plain(config)),
    }
    path = out / RUN_FILE
    save_safetensors(path, weights, model_metadata(config.architecture, extra))
    if config.checkpoints.pth:
        both = {"params": state.generator.state_dict(), "params_ema": weights}
        save_pth(path.with_suffix(".pth"), both)
    return path
