"""The engine on a CUDA device: precision, memory, tiles, back-off. Run by hand: pytest -m gpu."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from realesr_cli.engine.policy import choose, machine_info
from realesr_cli.engine.settings import EngineSettings, UpscaleSettings
from realesr_cli.engine.upscaler import Upscaler
from realesr_cli.errors import RealesrWarning
from realesr_cli.image.types import Image
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.nets.rrdbnet import standard_architecture

pytestmark = pytest.mark.gpu

ARCHITECTURES = [
    standard_architecture(4, blocks=3),
    standard_architecture(2, blocks=2),
    standard_architecture(1, blocks=1),
    CompactArchitecture(4, 16),
]


def network(architecture):
    torch.manual_seed(0)
    return architecture.build().eval()


def make_image(height, width, channels=3):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (height // 8 + 1, width // 8 + 1, channels)).astype(np.uint8)
    return small.repeat(8, 0).repeat(8, 1)[:height, :width].copy()


def psnr(a, b):
    mse = np.mean((a.astype(float) - b.astype(float)) ** 2)
    return 10 * np.log10(255**2 / max(mse, 1e-9))


def test_auto_takes_the_gpu_in_fp16():
    policy = choose(machine_info(), EngineSettings(), standard_architecture(4))
    assert policy.device == "cuda:0"
    assert (policy.precision, policy.backend) == ("fp16", "torch")
    assert policy.tile >= 256


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: f"{a.kind}-x{a.scale}")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_gpu_equals_cpu(architecture, precision):
    net = network(architecture)
    image = Image(make_image(150, 203))
    expected = Upscaler(net, EngineSettings("cpu", "fp32"))(image).pixels
    result = Upscaler(net, EngineSettings("cuda", precision, 64, 32, 4))(image).pixels
    assert result.shape == expected.shape
    assert psnr(result, expected) >= (58 if precision == "fp32" else 48)


def test_gray_alpha_and_any_factor():
    image = Image(make_image(90, 70, 1), make_image(90, 70, 1)[..., 0])
    upscaler = Upscaler(network(CompactArchitecture(4, 4)), EngineSettings("cuda"))
    settings = UpscaleSettings(scale=2.5, strength=0.7, color_fix=True, tta=True)
    result = upscaler(image, settings)
    assert result.pixels.shape == (225, 175, 1)
    assert result.alpha.shape == (225, 175)


def test_only_tiles_are_on_the_device():
    """The memory taken does not grow with the image."""
    upscaler = Upscaler(network(CompactArchitecture(4, 8)), EngineSettings("cuda", tile=256))
    peaks = []
    for side in (600, 2400):
        torch.cuda.reset_peak_memory_stats()
        upscaler(Image(make_image(side, side)))
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[1] < 1.2 * peaks[0]


def test_real_out_of_memory_is_survived():
    """With most of the device's memory taken away, a whole image is computed in pieces."""
    net = network(standard_architecture(4, blocks=1))
    image = Image(make_image(900, 900))
    expected = Upscaler(net, EngineSettings("cuda", "fp16", 256, 32))(image).pixels
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, 2 * 1024**3 / total))
    try:
        with pytest.warns(RealesrWarning, match="smaller tiles"):
            result = Upscaler(net, EngineSettings("cuda", "fp16", 0, 32))(image).pixels
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert psnr(result, expected) > 48
