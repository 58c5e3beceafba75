"""Released weights mixed and exported: the same as --denoise, and parity in figures. All slow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from realesr_cli.export.exporter import export_model
from realesr_cli.export.settings import SUFFIXES, ExportSettings
from realesr_cli.image.read import read_image
from realesr_cli.weights.load import load_model, open_model, open_pair, save_mixture
from realesr_cli.weights.locate import locate
from realesr_cli.weights.provenance import inspect_model

pytestmark = pytest.mark.slow

GENERAL, WEAK = "realesr-general-x4v3.fp16.pth", "realesr-general-wdn-x4v3.fp16.pth"


@pytest.fixture
def weights(shared: Path) -> Path:
    """The folder of released weights."""
    return shared / "data" / "weights"


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_a_mixture_of_the_pair_is_what_denoise_makes(
    weights: Path, tmp_path: Path, alpha: float
) -> None:
    text = f"{weights / WEAK}:{weights / GENERAL}@{alpha}"
    mixture = locate(text).mixture
    assert mixture is not None
    save_mixture(open_pair(mixture), mixture, tmp_path / "m.safetensors")
    expected = open_model(weights / GENERAL, denoise=alpha).net.state_dict()
    for found in (load_model(text), load_model(tmp_path / "m.safetensors")):
        state = found.state_dict()
        assert all(torch.equal(state[name], expected[name]) for name in expected)
    shares = [s["share"] for s in inspect_model(tmp_path / "m.safetensors").recorded["sources"]]
    assert shares == [round(1 - alpha, 6), alpha]


@pytest.mark.parametrize(
    ("settings", "psnr"),
    [
        (ExportSettings("onnx"), 120.0),
        (ExportSettings("onnx", half=True), 55.0),
        (ExportSettings("half"), 55.0),
    ],
    ids=lambda s: f"{s.to}-{s.half}" if isinstance(s, ExportSettings) else "",
)
@pytest.mark.parametrize("name", ["realesr-animevideov3.pth", "mixed"])
def test_parity(
    weights: Path, tmp_path: Path, name: str, settings: ExportSettings, psnr: float
) -> None:
    """What an 8-bit image can show ends at 59 dB."""
    model = f"{weights / WEAK}:{weights / GENERAL}@0.3" if name == "mixed" else weights / name
    opened = open_model(model)
    done = export_model(opened, tmp_path / f"m{SUFFIXES[settings.to]}", settings)
    assert all(p.psnr is not None and p.psnr >= psnr for p in done.parity)


def test_onnx_on_a_photo(weights: Path, shared: Path, tmp_path: Path) -> None:
    opened = open_model(weights / GENERAL)
    export_model(opened, tmp_path / "m.onnx", ExportSettings("onnx"))
    photo = read_image(shared / "data" / "bench" / "inputs" / "OST_009.png").pixels[:123, :157]
    img = np.ascontiguousarray(photo.transpose(2, 0, 1)[None].astype(np.float32) / 255)
    session = onnxruntime.InferenceSession(
        (tmp_path / "m.onnx").read_bytes(), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"input": img})
    expected = opened.net(torch.from_numpy(img)).numpy()
    assert found.shape == (1, 3, 4 * 123, 4 * 157)
    assert np.abs(found - expected).max() < 1e-4
    bits = [np.rint(x.clip(0, 1) * 255) for x in (found, expected)]
    assert np.abs(bits[0] - bits[1]).max() <= 1
    assert (bits[0] != bits[1]).mean() < 1e-4, "only numbers that lie between two steps"
