"""The SSIM loss is the papers' SSIM of the luma, and can be learned from."""

from __future__ import annotations

import pytest
import torch

from realesr_cli.degrade.pairs import Pair
from realesr_cli.errors import ConfigError
from realesr_cli.metrics.reference import ssim
from realesr_cli.train.config import StageConfig
from realesr_cli.train.losses import LossInputs, PixelConfig, SsimConfig, active_losses, ssim_loss
from realesr_cli.train.recipes import load_config


def images(seed: int, side: int = 40) -> torch.Tensor:
    """Whole 8-bit numbers, so that the score, which rounds, sees what the loss sees."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (2, 3, side, side), generator=generator) / 255


def test_it_is_one_minus_the_score() -> None:
    real = images(1)
    fake = ((real + images(2)) / 2 * 255).round() / 255
    scores = [ssim(a, b, luma=True) for a, b in zip(fake, real, strict=True)]
    assert 0.1 < float(ssim_loss(fake, real)) < 0.9
    assert float(ssim_loss(fake, real)) == pytest.approx(1 - sum(scores) / 2, abs=2e-5)


def test_equal_images_cost_nothing_and_noise_does() -> None:
    real = images(3)
    assert float(ssim_loss(real, real)) == pytest.approx(0, abs=1e-6)
    assert float(ssim_loss(images(4), real)) > 0.9


def test_descending_it_raises_the_score() -> None:
    real = images(5, 24)
    fake = (0.5 + 0.01 * torch.randn(real.shape)).requires_grad_()
    optimizer = torch.optim.Adam([fake], lr=0.05)
    before = float(ssim_loss(fake.detach(), real))
    for _ in range(30):
        optimizer.zero_grad()
        ssim_loss(fake, real).backward()
        optimizer.step()
    assert float(ssim_loss(fake, real).detach()) < before / 2


def test_half_precision_is_summed_in_single() -> None:
    real = images(6)
    loss = ssim_loss(real.bfloat16(), real)
    assert loss.dtype == torch.float32
    assert 0 <= float(loss) < 0.01


def test_a_stage_of_ssim_alone_is_a_stage() -> None:
    nothing = PixelConfig(weight=0)
    StageConfig(name="s", iterations=1, pixel=nothing, ssim=SsimConfig(weight=1.0))
    with pytest.raises(ConfigError, match="weight above 0"):
        StageConfig(name="s", iterations=1, pixel=nothing)


def test_set_from_the_command_line_it_is_one_of_the_generators_terms() -> None:
    config = load_config("compact-x4", ["ssim.weight=0.5"])
    assert config.stages[-1].ssim.weight == 0.5
    fake, real = images(7), images(8)
    inputs = LossInputs(fake, Pair(fake, real, real))
    found = {
        name: float(loss.weight * spec.compute(loss, inputs))
        for name, spec, loss in active_losses(config.stages[-1])
    }
    assert set(found) == {"pixel", "ssim"}
    assert found["ssim"] == pytest.approx(0.5 * float(ssim_loss(fake, real)))
