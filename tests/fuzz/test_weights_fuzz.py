"""Hostile weight files and lists of models: one line of error, little time and memory, no code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import weight_mutants

COUNT = int(os.environ.get("REALESR_FUZZ_WEIGHTS", "10000"))
"""Mutants of the long run; REALESR_FUZZ_FIRST is the index of the first one, so that a run can be
split, and REALESR_FUZZ_SEED the seed."""
FIRST = int(os.environ.get("REALESR_FUZZ_FIRST", "0"))
SEED = int(os.environ.get("REALESR_FUZZ_SEED", "0"))
_AT_ONCE = 2_500


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return weight_mutants.make_files()


def test_every_file_that_is_mutated_can_be_read(files: dict[str, bytes], tmp_path: Path) -> None:
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        assert weight_mutants.check(tmp_path / name) == "Generator", name


def test_mutants_are_read_or_refused(files: dict[str, bytes]) -> None:
    outcomes = weight_mutants.run(files, SEED, FIRST, 250)
    for expected in ("Generator", "CheckpointFormatError", "UnknownArchitectureError"):
        assert outcomes[expected] > 5, outcomes


def test_mutants_of_lists_are_read_or_refused() -> None:
    outcomes = weight_mutants.run_json(SEED, FIRST, 250)
    assert outcomes["ConfigError"] > 30, outcomes
    assert outcomes["CompactArchitecture"] > 15, outcomes


def test_the_check_notices_code_that_runs(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="code was run"):
        weight_mutants.check_call(lambda: os.mkdir(tmp_path / "canary"), 0)


@pytest.mark.slow
def test_many_mutants_are_read_or_refused() -> None:
    script = Path(weight_mutants.__file__)
    total = 0
    for first in range(FIRST, FIRST + COUNT, _AT_ONCE):
        size = min(_AT_ONCE, FIRST + COUNT - first)
        # In processes of their own: a crash of torch's reader is a fault too.
        command = [sys.executable, str(script), "--seed", str(SEED)]
        command += ["--first", str(first), "--count", str(size)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
        where = f"seed={SEED} first={first} count={size}"
        assert done.returncode == 0, f"{where}: {done.stderr[-2000:]}"
        total += sum(json.loads(done.stdout).values())
    assert total == 2 * COUNT
