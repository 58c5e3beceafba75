"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

# Examples have no time limit: a busy machine is no failure.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.load_profile("default")

if "PYTEST_XDIST_WORKER" in os.environ:
    # One process per core already; threads of torch would only wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent

# Results must not depend on which of the installed libraries is faster today.
os.environ["REALESR_RACE"] = "0"


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real weights and images beside the checkout; only for `slow` tests."""
    folder = ROOT.parent / "shared"
    assert folder.is_dir(), f"{folder} is needed for this test: see CONTRIBUTING.md"
    return folder


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees or changes the user's cache, reaches the network, or measures backends."""
    monkeypatch.setenv("REALESR_HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.delenv("REALESR_OFFLINE", raising=False)
