"""The wheel holds everything: installed alone, it lists its models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import click
import pytest


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    result = subprocess.run(
        [*command, str(root)], capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (built,) = out.glob("*.whl")
    return built


def test_wheel_holds_the_list_the_marker_and_the_license(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "realesr_cli/weights.json" in names
    assert "realesr_cli/py.typed" in names
    assert "realesr_cli/evaluate/page.html" in names
    assert "realesr_cli/metrics/data/niqe_pristine.npz" in names
    assert "realesr_cli/metrics/data/LICENSE.txt" in names
    assert "realesr_cli/weights/bundled/photo.safetensors" in names
    assert "realesr_cli/weights/bundled/MODEL_CARD.md" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any(name.startswith(("tests/", "docs/")) for name in names)


def test_installed_wheel_lists_its_models(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=False, symlinks=True)
    scripts = environment / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", str(wheel)],
        check=True,
        capture_output=True,
        timeout=300,
    )
    site = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout.strip()
    # The libraries we need, but not this checkout: a .pth file that names only that folder is not
    # followed for the .pth files in it, so an editable install of ours stays out.
    libraries = Path(click.__file__).parents[1]
    (Path(site) / "libraries.pth").write_text(str(libraries), encoding="utf-8")
    code = "import realesr_cli; print(realesr_cli.__file__)"
    where = subprocess.run(
        [str(python), "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path
    ).stdout.strip()
    assert Path(where).is_relative_to(environment)
    listed = subprocess.run(
        [str(scripts / "realesr"), "models", "list", "--json"],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
    ).stdout
    names = [model["name"] for model in json.loads(listed)["models"]]
    assert "RealESRGAN_x4plus" in names
    assert "realesr-animevideov3" in names
