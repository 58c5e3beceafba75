"""Options of the engine on every command that takes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as pillow
from upscale_cli import Shell, make_image

from realesr_cli.cli.main import run


def call(capture: pytest.CaptureFixture[bytes], *arguments: object) -> tuple[int, str, str]:
    capture.readouterr()
    with pytest.raises(SystemExit) as ended:
        run([str(argument) for argument in arguments])
    heard = capture.readouterr()
    return int(ended.value.code or 0), heard.out.decode(), heard.err.decode()


@pytest.fixture
def commands(shell: Shell, tiny: Path) -> dict[str, list[str]]:
    """A call of each command on one small image."""
    make_image("photo.png")
    make_image("gt/photo.png", 48, 32)
    common = ["-m", str(tiny), "--device", "cpu", "--threads", "1"]
    return {
        "upscale": ["upscale", "photo.png", *common, "-v", "--overwrite"],
        "compare": ["compare", "photo.png", *common, "-o", "page.html", "--overwrite"],
        "evaluate": ["evaluate", "--gt", "gt", "--degrade", "bicubic", *common, "--json", "-",
                     "--metrics", "psnr-y8"],
    }  # fmt: skip


@pytest.mark.parametrize("command", ["upscale", "compare", "evaluate"])
@pytest.mark.parametrize("backend", ["torch", "onednn", "auto"])
def test_a_backend_is_chosen_by_name(
    commands: dict[str, list[str]],
    capfdbinary: pytest.CaptureFixture[bytes],
    command: str,
    backend: str,
) -> None:
    code, out, err = call(capfdbinary, *commands[command], "--backend", backend)
    assert code == 0, err
    if command == "upscale" and backend != "auto":
        assert f"backend {backend}: requested" in err
    if command == "evaluate" and backend != "auto":
        assert json.loads(out)["settings"]["models"]["tiny"]["backend"] == backend


@pytest.mark.parametrize("command", ["upscale", "compare", "evaluate"])
@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--backend", "onednm"], "onednn"),
        (["--threads", "100000"], "100000"),
        (["--threads", "0"], "threads"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    commands: dict[str, list[str]],
    capfdbinary: pytest.CaptureFixture[bytes],
    command: str,
    options: list[str],
    word: str,
) -> None:
    code, _, err = call(capfdbinary, *commands[command], *options)
    assert code == 2
    assert word in err
    assert "Traceback" not in err
    assert sum(line.lower().startswith("error") for line in err.splitlines()) == 1


def test_a_precision_that_no_backend_computes(
    commands: dict[str, list[str]], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    for backend in ("auto", "torch", "onednn"):
        options = ("--backend", backend, "--precision", "fp16")
        code, _, err = call(capfdbinary, *commands["upscale"], *options)
        assert code == 2
        assert "fp16" in err


def test_wrapped_textures_and_kept_alpha(shell: Shell) -> None:
    texture = np.random.default_rng(0).integers(0, 256, (8, 12, 4), np.uint8)
    texture[2:6, 3:9, 3] = 0
    for name, pixels in (("a", texture), ("b", np.roll(texture, (2, 5), (0, 1)))):
        pillow.fromarray(pixels).save(f"{name}.png")
    outcome = shell("a.png", "b.png", "--pad", "wrap", "--alpha", "keep", "--precision", "fp32")
    assert outcome.code == 0, outcome.err
    first, second = (np.asarray(pillow.open(f"{n}_x4.png")).astype(int) for n in "ab")
    assert np.abs(np.roll(first, (8, 20), (0, 1)) - second).max() <= 1
