"""Fixtures of the tests that drive the whole command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from upscale_cli import Shell, save_tiny


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a tiny untrained network, x4."""
    return save_tiny(tmp_path_factory.mktemp("tiny") / "tiny.pth")


@pytest.fixture
def shell(
    tiny: Path,
    tmp_path: Path,
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> Shell:
    """`realesr upscale` in an empty current folder."""
    monkeypatch.chdir(tmp_path)
    return Shell(tiny, capfdbinary, monkeypatch)
