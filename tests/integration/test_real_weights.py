"""Released weights on real images: precision, tiles, memory. All slow; they need `shared`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from realesr_cli.engine.settings import EngineSettings, UpscaleSettings
from realesr_cli.engine.upscaler import Upscaler
from realesr_cli.image.read import read_image
from realesr_cli.image.types import Image
from realesr_cli.weights.load import open_model

pytestmark = pytest.mark.slow

WEIGHTS = ("realesr-general-x4v3.fp16.pth", "realesr-animevideov3.pth")


def psnr(a, b) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2)))


def model(shared: Path, name: str):
    return open_model(shared / "data" / "weights" / name).net


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("photo", ["OST_009.png", "0030.jpg", "00017_gray.png"])
def test_bf16_is_as_good_as_fp32(shared, name, photo):
    """At least 48 dB; a processor without bf16 arithmetic emulates it, with equal bits."""
    net = model(shared, name)
    image = read_image(shared / "data" / "bench" / "inputs" / photo)
    results = [
        Upscaler(net, EngineSettings("cpu", precision))(image).pixels
        for precision in ("fp32", "bf16")
    ]
    assert psnr(*results) >= 48


@pytest.mark.parametrize("name", WEIGHTS)
def test_tiles_do_not_show(shared, name):
    net = model(shared, name)
    image = read_image(shared / "data" / "bench" / "inputs" / "OST_009.png")
    whole = Upscaler(net, EngineSettings("cpu", "fp32", 0))(image).pixels.astype(int)
    tiled = Upscaler(net, EngineSettings("cpu", "fp32", 100))(image).pixels
    assert np.abs(whole - tiled).max() <= 1


def test_flat_color_does_not_drift_far(shared):
    net = model(shared, WEIGHTS[0])
    upscaler = Upscaler(net, EngineSettings("cpu"))
    for color in ((128, 128, 128), (200, 60, 40), (20, 90, 200)):
        flat = Image(np.full((64, 64, 3), color, np.uint8))
        fixed = upscaler(flat, UpscaleSettings(color_fix=True)).pixels.mean((0, 1))
        assert np.abs(fixed - color).max() < 1


_MEMORY = """
import json, resource, sys
import numpy as np, torch
from realesr_cli.image.types import Image
from realesr_cli.engine.settings import EngineSettings
from realesr_cli.engine.upscaler import Upscaler
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.nets.rrdbnet import RRDBArchitecture
kind, height, width, bits = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
torch.manual_seed(0)
if kind == "rrdb":
    net = RRDBArchitecture(4, 1).build()
else:
    net = CompactArchitecture(4, 2).build()
dtype = np.uint16 if bits == 16 else np.uint8
pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3)).astype(dtype)
image = Image(pixels)
result = Upscaler(net, EngineSettings("cpu"))(image)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"peak": peak, "output": result.pixels.nbytes}))
"""


@pytest.mark.parametrize(
    ("kind", "height", "width", "bits"),
    [
        ("compact", 3000, 4000, 8),
        ("compact", 900, 12000, 8),
        ("compact", 2000, 3000, 16),
        ("rrdb", 1500, 2000, 8),
    ],
)
def test_peak_memory(kind, height, width, bits):
    """At most 1.25 x the finished integer output + 1.5 GiB, Python and torch included."""
    arguments = [kind, str(height), str(width), str(bits)]
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY, *arguments], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert found["peak"] <= 1.25 * found["output"] + 1.5 * 1024**3, found
