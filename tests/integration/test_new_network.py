"""A network that is one file and one entry of a table is upscaled with, exported and described."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image as pillow
from torch import Tensor, nn
from torch.nn import functional as F

from realesr_cli.cli.main import cli
from realesr_cli.nets import detection
from realesr_cli.nets.architecture import Architecture, Generator, Shapes
from realesr_cli.settings import check, option


@dataclass(frozen=True)
class ToyArchitecture(Architecture):
    """One convolution and a pixel-shuffle."""

    kind: ClassVar[str] = "toy"

    scale: int = option(2, help="Output size over input size.", low=1, high=4)
    features: int = option(4, help="Channels of the hidden layer.", low=1, high=64)

    def __post_init__(self) -> None:
        check(self)

    @property
    def receptive_radius(self) -> int:
        return 2

    @property
    def values_per_pixel(self) -> int:
        return 2 * self.features + 6 * self.scale**2

    @property
    def card(self) -> tuple[str, tuple[str, ...]]:
        return "toy", (f"{self.features}nf",)

    def build(self) -> Toy:
        return Toy(self)

    def describe(self) -> str:
        return f"Toy x{self.scale}, {self.features} features"

    @classmethod
    def detect(cls, shapes: Shapes) -> tuple[Self, ...]:
        if "toy_first.weight" not in shapes or "toy_last.weight" not in shapes:
            return ()
        last = shapes["toy_last.weight"]
        return (cls(round((last[0] / 3) ** 0.5), last[1]),)


class Toy(Generator):
    """Two convolutions with a ReLU between them."""

    def __init__(self, architecture: ToyArchitecture) -> None:
        super().__init__(architecture)
        self.toy_first = nn.Conv2d(3, architecture.features, 3, 1, 1)
        self.toy_last = nn.Conv2d(architecture.features, 3 * architecture.scale**2, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.toy_last(F.relu(self.toy_first(x))), self.scale)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    known = (*detection.ARCHITECTURES, ToyArchitecture)
    monkeypatch.setattr(detection, "ARCHITECTURES", known)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    torch.save({"params": ToyArchitecture(3, 5).build().state_dict()}, "toy.pth")
    return tmp_path / "toy.pth"


def run(*args: str) -> str:
    result = CliRunner().invoke(cli, args, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_it_upscales(model: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    pillow.fromarray(pixels).save("in.png")
    run("upscale", "in.png", "-m", "toy.pth", "-o", "out.png", "--tile", "16", "--device", "cpu",
        "--precision", "fp32")  # fmt: skip
    net = ToyArchitecture(3, 5).build()
    net.load_state_dict(torch.load(model, weights_only=True)["params"])
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        expected = (net(x)[0].permute(1, 2, 0).clamp(0, 1) * 255).round().numpy()
    assert np.abs(np.asarray(pillow.open("out.png")).astype(int) - expected).max() <= 1


def test_it_is_exported_imported_and_described(model: Path) -> None:
    assert "Toy x3, 5 features" in run("export", "toy.pth", "--to", "onnx")
    run("export", "toy.pth", "--to", "half")
    run("models", "import", "toy.pth")
    assert json.loads(run("models", "info", "toy", "--json"))["architecture"]["kind"] == "toy"
    card = json.loads(run("models", "card", "toy"))
    assert (card["architecture"], card["size"], card["scale"]) == ("toy", ["5nf"], 3)
    run("models", "interpolate", "toy", "toy.safetensors", "--alpha", "0.5", "-o", "mix.pth")
