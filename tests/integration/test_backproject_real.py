"""Back-projection with real networks on a known set: nearer to the originals, and to the inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as pillow

from realesr_cli.engine.settings import EngineSettings, UpscaleSettings
from realesr_cli.engine.upscaler import Upscaler
from realesr_cli.image.types import Image
from realesr_cli.metrics.reference import psnr
from realesr_cli.ops.resize import imresize
from realesr_cli.weights.load import load_model

pytestmark = pytest.mark.slow


def tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.astype(np.float64) / 255).permute(2, 0, 1)


def reduced(pixels: np.ndarray) -> torch.Tensor:
    return imresize(tensor(pixels)[None], 0.25)[0]


def originals(shared: Path) -> list[np.ndarray]:
    found = []
    for path in sorted((shared / "data" / "bench" / "Set5").glob("*_HR.png")):
        pixels = np.asarray(pillow.open(path).convert("RGB"))
        height, width = (side // 12 * 12 for side in pixels.shape[:2])
        found.append(pixels[:height, :width])
    assert len(found) == 5
    return found


@pytest.mark.parametrize(
    ("weights", "gain"),
    [("realesr-general-x4v3.fp16.pth", 3.0), ("realesr-animevideov3.pth", 1.9)],
)
def test_set5(shared: Path, weights: str, gain: float) -> None:
    upscaler = Upscaler(
        load_model(shared / "data" / "weights" / weights), EngineSettings("cpu", "fp32")
    )
    rows: list[list[tuple[float, float]]] = [[], [], []]
    for original in originals(shared):
        small = reduced(original)
        img = Image((small.clamp(0, 1) * 255).round().permute(1, 2, 0).numpy().astype(np.uint8))
        given = img.pixels.astype(np.float64) / 255
        for row, (count, kernel) in zip(
            rows, [(0, None), (20, "gaussian"), (20, "reverse")], strict=True
        ):
            look = UpscaleSettings(back_project=count, back_project_kernel=kernel)
            result = upscaler(img, look).pixels
            error = reduced(result).permute(1, 2, 0).numpy() - given
            fidelity = -10 * np.log10(np.square(error).mean())
            score = psnr(tensor(result), tensor(original), crop=4, luma=True)
            row.append((score, float(fidelity)))
    plain, gaussian, reverse = np.mean(rows, axis=1)
    assert gaussian[0] - plain[0] > gain
    assert reverse[0] - plain[0] > gain
    assert plain[1] < 32
    assert min(gaussian[1], reverse[1]) > 60
