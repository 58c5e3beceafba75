"""The command `realesr upscale` as the tests call it, with a tiny untrained model."""

from __future__ import annotations

import io
import json
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image as pillow

from realesr_cli.cli.main import run
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.weights.model_files import save_pth


@dataclass(frozen=True)
class Outcome:
    """What a call gave: its exit code, stdout as bytes, stderr as text."""

    code: int
    out: bytes
    err: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        """The lines of stdout as JSON."""
        return [json.loads(line) for line in self.out.decode().splitlines()]

    @property
    def images(self) -> list[dict[str, Any]]:
        """The JSON objects but for the summary."""
        return [item for item in self.objects if "summary" not in item]

    @property
    def summary(self) -> dict[str, Any]:
        """The counts of the JSON summary."""
        found: dict[str, Any] = self.objects[-1]["summary"]
        return found


class Shell:
    """Calls the command inside this process, through the same boundary as the real one."""

    def __init__(
        self,
        model: Path,
        capture: pytest.CaptureFixture[bytes],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.model = model
        self._capture = capture
        self._monkeypatch = monkeypatch

    def __call__(self, *arguments: object, stdin: bytes = b"", model: object = None) -> Outcome:
        """`realesr upscale -m MODEL --device cpu ARGUMENTS`, on one thread."""
        chosen = str(self.model if model is None else model)
        own = ["upscale", "-m", chosen, "--device", "cpu", "--threads", "1"]
        args = own + [str(argument) for argument in arguments]
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        self._capture.readouterr()
        with warnings.catch_warnings(), pytest.raises(SystemExit) as ended:
            run(args)
        heard = self._capture.readouterr()
        assert isinstance(ended.value.code, int)
        return Outcome(ended.value.code, heard.out, heard.err.decode())


def save_tiny(path: Path, scale: int = 4, seed: int = 7) -> Path:
    """Weights of a network that takes next to no time."""
    torch.manual_seed(seed)
    net = CompactArchitecture(scale=scale, features=8, convs=1).build()
    save_pth(path, {"params": net.state_dict()})
    return path


def make_image(path: Path | str, width: int = 12, height: int = 8, mode: str = "RGB") -> Path:
    """A small image with some structure in it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pillow.radial_gradient("L").resize((width, height)).convert(mode)
    image.save(path)
    return path


def size_of(path: Path | str) -> tuple[int, int]:
    """Width and height of an image that decodes."""
    with pillow.open(path) as image:
        image.load()
        return image.size
