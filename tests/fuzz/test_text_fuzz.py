"""Hostile recipes, descriptions, archives and arguments: one line of error, little time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import text_mutants
from weight_mutants import check_call

COUNT = int(os.environ.get("REALESR_FUZZ_TEXTS", "20000"))
"""Mutants of the long run; REALESR_FUZZ_SEED is the seed."""
SEED = int(os.environ.get("REALESR_FUZZ_SEED", "0"))


def test_everything_that_is_mutated_can_be_read(tmp_path: Path) -> None:
    for name, (data, make, parse) in text_mutants.make_targets().items():
        argument = make(data, tmp_path)
        outcome = check_call(lambda parse=parse, argument=argument: parse(argument), len(data))
        assert not outcome.endswith("Error"), (name, outcome)


def test_mutants_are_read_or_refused() -> None:
    outcomes = text_mutants.run(SEED, 0, 520)
    for name in text_mutants.make_targets():
        assert outcomes[f"{name} refused"] + outcomes[f"{name} read"] == 40
    assert sum(count for key, count in outcomes.items() if key.endswith("read")) > 80


@pytest.mark.slow
def test_many_mutants_are_read_or_refused() -> None:
    command = [sys.executable, text_mutants.__file__, "--seed", str(SEED), "--count", str(COUNT)]
    # In a process of its own: a crash is a fault too.
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, f"seed={SEED}: {done.stderr[-2000:]}"
    assert sum(json.loads(done.stdout).values()) == COUNT
