"""docs/extending.md, followed to the letter: a network and a backend of one file and one entry."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from extending import blocks, install
from PIL import Image as pillow
from upscale_cli import Shell, make_image

from realesr_cli import upscale
from realesr_cli.cli.doctor import doctor_command
from realesr_cli.engine import backends, policy
from realesr_cli.engine.settings import EngineSettings
from realesr_cli.nets import detection
from realesr_cli.weights.model_files import model_metadata, save_safetensors


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Install the page's code and write weights of its network."""
    install(monkeypatch)
    toy = next(kind for kind in detection.ARCHITECTURES if kind.kind == "toy")
    torch.manual_seed(0)
    net = toy(3).build()
    path = tmp_path / "toy.safetensors"
    save_safetensors(path, net.state_dict(), model_metadata(net.architecture))
    return path


def test_the_commands_of_the_page_run(shell: Shell, toy: Path) -> None:
    Path("toy.safetensors").write_bytes(toy.read_bytes())
    make_image("photo.png")
    commands = [line for code in blocks("sh") for line in code.splitlines()]
    assert len(commands) == 3
    for command in commands:
        program, verb, *arguments = shlex.split(command)
        assert program == "realesr"
        if verb == "doctor":
            listed = CliRunner().invoke(doctor_command).output
            assert "double: fp64 on the CPU" in listed
            continue
        assert verb == "upscale"
        outcome = shell(*arguments, model=None)
        assert outcome.code == 0, outcome.err
        with pillow.open("photo_x3.png") as image:
            assert image.size == (36, 24)


def test_the_network_is_known_by_its_tensors(toy: Path) -> None:
    kind = next(kind for kind in detection.ARCHITECTURES if kind.kind == "toy")
    for scale in (1, 2, 5):
        architecture = kind(scale)
        assert detection.detect(architecture.shapes()).architecture == architecture
        assert detection.architecture_from_plain(architecture.to_plain()) == architecture


def test_the_backend_is_used_and_agrees_with_the_others(toy: Path) -> None:
    image = np.random.default_rng(0).random((40, 50, 3)).astype(np.float32)
    results = [
        upscale(image, model=toy, engine=EngineSettings("cpu", tile=16, backend=name))
        for name in ("double", "torch", "auto")
    ]
    np.testing.assert_allclose(results[0], results[1], atol=1e-6)
    np.testing.assert_array_equal(results[1], results[2])
    machine = policy.machine_info()
    assert {"double", "torch"} <= machine.backends
    chosen = policy.choose(machine, EngineSettings(backend="double"), detection.ARCHITECTURES[2]())
    assert (chosen.device, chosen.backend, chosen.tile) == ("cpu", "double", 128)
    assert [b.name for b in backends.BACKENDS][-1] == "double"


def test_nothing_of_it_stays(root: Path) -> None:
    assert all(kind.kind != "toy" for kind in detection.ARCHITECTURES)
    assert all(backend.name != "double" for backend in backends.BACKENDS)
