"""Hostile images: mutants of every format, and bombs, cost little and fail with one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import image_bombs
import image_mutants
import pytest

COUNT = int(os.environ.get("REALESR_FUZZ_IMAGES", "200000"))
"""Mutants of the long run; REALESR_FUZZ_FIRST is the index of the first one, so that a run can be
split, and REALESR_FUZZ_SEED the seed."""
FIRST = int(os.environ.get("REALESR_FUZZ_FIRST", "0"))
SEED = int(os.environ.get("REALESR_FUZZ_SEED", "0"))
_AT_ONCE = 5_000


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return image_mutants.make_files()


@pytest.mark.parametrize("start", range(0, 600, 100))
def test_mutants_are_read_or_refused(start: int, files: dict[str, bytes]) -> None:
    outcomes = image_mutants.run(files, SEED, start, 100)
    assert outcomes["Image"] > 10
    assert outcomes["UnreadableImageError"] > 10


def test_every_file_that_is_mutated_can_be_read(files: dict[str, bytes]) -> None:
    for name, data in files.items():
        assert image_mutants.check(data) == "Image", name


@pytest.mark.parametrize("make", image_bombs.BOMBS, ids=lambda make: make.__name__)
def test_bombs_cost_little(make: Callable[[], bytes]) -> None:
    image_mutants.check(make(), max_pixels=250_000_000, spare=0)


@pytest.mark.slow
def test_many_mutants_are_read_or_refused() -> None:
    script = Path(image_mutants.__file__)
    total = 0
    for first in range(FIRST, FIRST + COUNT, _AT_ONCE):
        size = min(_AT_ONCE, FIRST + COUNT - first)
        # In processes of their own: a decoder that crashes is a fault too.
        command = [sys.executable, str(script), "--seed", str(SEED)]
        command += ["--first", str(first), "--count", str(size)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
        where = f"seed={SEED} first={first} count={size}"
        assert done.returncode == 0, f"{where}: {done.stderr[-2000:]}"
        total += sum(json.loads(done.stdout).values())
    assert total == COUNT
