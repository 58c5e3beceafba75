"""Fixtures shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


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
    """No test sees or changes the user's cache, and none reaches the network."""
    monkeypatch.setenv("REALESR_HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.delenv("REALESR_OFFLINE", raising=False)
