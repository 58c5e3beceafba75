"""A discriminator shown only detail judges texture, not colour."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scipy.ndimage import gaussian_filter

from realesr_cli.degrade.pairs import Pair
from realesr_cli.nets.discriminators import UNetDiscriminator
from realesr_cli.train.distributed import ALONE
from realesr_cli.train.losses import DETAIL_GAIN, detail
from realesr_cli.train.machine import choose_machine
from realesr_cli.train.recipes import load_config
from realesr_cli.train.step import Setup, generator_terms


def test_it_is_what_a_gaussian_takes_out() -> None:
    picture = torch.rand(1, 1, 32, 40, generator=torch.Generator().manual_seed(0)).double()
    found = detail(picture, 2.0)[0, 0].numpy() / DETAIL_GAIN
    plain = picture[0, 0].numpy()
    wanted = plain - gaussian_filter(plain, 2.0, mode="mirror", radius=6)
    assert abs(found - wanted).max() < 1e-6


def test_flat_colour_has_none() -> None:
    flat = torch.tensor([0.2, 0.7, 1.0]).view(1, 3, 1, 1).expand(1, 3, 24, 24)
    assert float(detail(flat, 1.5).abs().max()) < 1e-5


@pytest.mark.parametrize("sigma", [0.0, 2.0])
def test_only_where_asked_colour_does_not_count(sigma: float) -> None:
    torch.manual_seed(0)
    choices = [f"stages.gan.gan.detail={sigma}", "runtime.precision=fp32"]
    config = load_config("realesrgan-x4", choices)
    stage = replace(config.stages[-1], perceptual=replace(config.stages[-1].perceptual, weight=0.0))
    judge = UNetDiscriminator(features=8).eval()
    machine = choose_machine(config.runtime, device="cpu")
    setup = Setup(stage, machine, ALONE, torch.nn.Identity(), judge, None, 0.9)
    fake = torch.rand(1, 3, 32, 32) / 2
    terms = [
        float(generator_terms(setup, judge, picture, Pair(fake, fake, fake))["gan"].detach())
        for picture in (fake, fake + 0.3)
    ]
    assert (terms[0] == pytest.approx(terms[1], rel=1e-4)) is (sigma > 0)
