"""`realesr upscale -m A:B@ALPHA` gives the image that the mixture's file gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as pillow
from upscale_cli import Shell, make_image, save_tiny

from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.weights import model_files
from realesr_cli.weights.load import open_pair, save_mixture
from realesr_cli.weights.locate import locate


@pytest.fixture
def pair(tmp_path: Path) -> str:
    """A mixture of two files in the current folder."""
    save_tiny(tmp_path / "a.pth")
    torch.manual_seed(1)
    net = CompactArchitecture(scale=4, features=8, convs=1).build()
    model_files.save_pth(tmp_path / "b@2x.pth", {"params": net.state_dict()})
    return "a.pth:b@2x.pth@0.3"


def test_mixed_on_the_fly(shell: Shell, pair: str) -> None:
    mixture = locate(pair).mixture
    assert mixture is not None
    save_mixture(open_pair(mixture), mixture, Path("c.safetensors"))
    make_image("p.png")
    assert shell("p.png", "-o", "fly.png", model=pair).code == 0
    assert shell("p.png", "-o", "file.png", model="c.safetensors").code == 0
    with pillow.open("fly.png") as fly, pillow.open("file.png") as file:
        assert np.array_equal(np.asarray(fly), np.asarray(file))
    named = shell("p.png", "-o", "{stem}_{model}{ext}", "--json", model=pair)
    assert named.images[0]["output"] == "p_a+b@2x@0.3.png"
    assert named.images[0]["model"] == "a+b@2x@0.3"


def test_a_plan_of_a_mixture(shell: Shell, pair: str) -> None:
    make_image("p.png")
    local = shell("p.png", "--dry-run", "--json", model=pair)
    assert local.code == 0
    assert local.summary["fetch"] is False
    absent = shell("p.png", "--dry-run", "--json", "--offline", model="general:wdn@0.5")
    assert absent.code == 0
    assert absent.summary["fetch"] == 2 * 4_885_111


@pytest.mark.parametrize(
    ("model", "said", "code"),
    [
        ("a.pth:b@2x.pth@1.5", "got 1.5", 2),
        ("a.pth:b@2x.pth", "two models without a share", 2),
        ("a.pth:./b@2x.pht@0.5", "did you mean", 3),
        ("general:animevideo@0.5", "convs is 32 against 16", 2),
    ],
)
def test_mixtures_that_cannot_be(shell: Shell, pair: str, model: str, said: str, code: int) -> None:
    make_image("p.png")
    outcome = shell("p.png", model=model)
    assert outcome.code == code
    assert said in outcome.err
    assert not Path("p_x4.png").exists()
