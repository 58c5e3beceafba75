"""The texture loss asks how much fine detail there is and where, not what it is."""

from __future__ import annotations

import math

import pytest
import torch

from realesr_cli.errors import ConfigError
from realesr_cli.train.config import PixelConfig, StageConfig, TextureConfig
from realesr_cli.train.losses import texture_loss
from realesr_cli.train.plan import stage_text


def noise(seed: int, strength: float = 0.1, side: int = 96) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.5 + strength * torch.randn(1, 1, side, side, generator=generator).expand(-1, 3, -1, -1)


def test_other_noise_of_equal_strength_costs_little() -> None:
    """The two differ everywhere, by 0.14 on average of squares."""
    assert float(texture_loss(noise(1), noise(2))) < 0.1
    assert float(texture_loss(noise(1), noise(1))) == 0


@pytest.mark.parametrize("factor", [0.25, 0.5, 2.0])
def test_strength_counts_by_its_logarithm(factor: float) -> None:
    real = noise(1)
    found = float(texture_loss(0.5 + factor * (real - 0.5), real))
    assert found == pytest.approx(abs(math.log(factor)), rel=0.05)


def test_place_counts() -> None:
    half = noise(1).clone()
    half[..., 48:] = 0.5
    assert float(texture_loss(half.flip(-1), half)) > 1
    assert float(texture_loss(half, half)) == 0


def test_a_share_asks_for_less() -> None:
    real = noise(1)
    weaker = 0.5 + 0.5 * (real - 0.5)
    assert float(texture_loss(weaker, real, share=0.5)) < 0.02
    assert float(texture_loss(real, real, share=0.5)) == pytest.approx(math.log(2), rel=0.05)


def test_colour_and_coarse_forms_do_not_count() -> None:
    real = noise(1)
    ramp = torch.linspace(0, 0.3, 96).view(1, 1, 1, -1)
    tint = torch.tensor([0.05, -0.02, 0.1]).view(1, 3, 1, 1)
    assert float(texture_loss(real + ramp + tint, real)) < 0.01


def test_descending_it_brings_detail_back() -> None:
    real = noise(1, side=32)
    fake = (0.5 + 0.1 * (noise(2, side=32) - 0.5)).clone().requires_grad_()
    optimiser = torch.optim.Adam([fake], lr=0.01)
    before = float(texture_loss(fake.detach(), real))
    for _ in range(30):
        optimiser.zero_grad()
        texture_loss(fake, real).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert float(texture_loss(fake.detach(), real)) < before / 4


def test_a_stage_says_that_it_uses_it() -> None:
    nothing = PixelConfig(weight=0)
    stage = StageConfig(name="s", iterations=1, pixel=nothing, texture=TextureConfig(weight=0.5))
    assert "texture x 0.5" in stage_text(stage)
    with pytest.raises(ConfigError, match="share"):
        TextureConfig(share=0)
