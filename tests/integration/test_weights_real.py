"""The released files themselves: recognized, official by hash, denoised as published."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from realesr_cli.weights import import_models, registry
from realesr_cli.weights.checkpoints import read_state
from realesr_cli.weights.load import open_model
from realesr_cli.weights.provenance import inspect_model

pytestmark = pytest.mark.slow


def test_official_file_is_recognized_by_its_hash(shared: Path) -> None:
    path = shared / "data/weights/realesr-animevideov3.pth"
    info = inspect_model(path)
    entry = registry.resolve("animevideo")
    assert info.name == entry.name
    assert info.parameters == 621_424
    assert info.bytes == entry.bytes
    assert import_models.import_file(path).entry == entry
    opened = open_model("animevideo", offline=True)
    assert opened.net(torch.rand(1, 3, 7, 5)).shape == (1, 3, 28, 20)


def test_half_precision_copies_and_their_denoising(shared: Path) -> None:
    folder = shared / "data/weights"
    general, _ = read_state(folder / "realesr-general-x4v3.fp16.pth")
    weak, _ = read_state(folder / "realesr-general-wdn-x4v3.fp16.pth")
    for denoise in (0.0, 0.5, 1.0):
        net = open_model(folder / "realesr-general-x4v3.fp16.pth", denoise=denoise).net
        for name, tensor in net.state_dict().items():
            expected = denoise * general[name] + (1 - denoise) * weak[name]
            torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-7)
