"""Grain: what a Compact network carries it with, what it leaves alone, and what stays fixed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from realesr_cli.nets import grain as module
from realesr_cli.nets.compact import Compact, CompactArchitecture
from realesr_cli.nets.grain import (
    FIELDS,
    UNIT,
    WithParts,
    can_have_grain,
    carriers,
    has_grain,
    hold_grain,
    parts,
    sow,
    with_parts,
)

WIDE = 24


def network(seed: int = 0, *, convs: int = 6, features: int = 32, scale: int = 4) -> Compact:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = CompactArchitecture(scale, convs, features).build()
    return net.requires_grad_(False)


def grained(share: float = 0.5, **more: int) -> Compact:
    net = network(**more)
    sow(net, share)
    return net


def noise(seed: int = 0, side: int = 48) -> torch.Tensor:
    """A picture as files hold it: 8-bit codes, soft, with noise of a code or two."""
    rng = torch.Generator().manual_seed(seed)
    soft = F.interpolate(torch.rand(1, 3, 6, 6, generator=rng), size=(side, side), mode="bicubic")
    return ((soft * 200 + 1.5 * torch.randn(1, 3, side, side, generator=rng)).round() / 255).clamp(
        0, 1
    )


def drawn(net: Compact, x: torch.Tensor) -> torch.Tensor:
    found = parts(net, x)
    return found.picture - found.clean


def test_parts_add_up_to_what_the_plain_network_makes() -> None:
    net, x = grained(), noise()
    found = parts(net, x)
    assert torch.allclose(found.picture, net(x), atol=1e-5)
    assert found.strength.shape == (1, 1, 48, 48)
    assert torch.allclose(with_parts(net)(x).clean, found.clean)
    assert torch.allclose(found.strength, torch.full_like(found.strength, module.START), atol=1e-5)


def test_at_share_nought_nothing_is_drawn() -> None:
    assert float(drawn(grained(0.0), noise()).abs().max()) == 0


def test_flat_pictures_and_ramps_get_no_grain() -> None:
    net = grained(1.0)
    inner = (..., slice(WIDE * 4, -WIDE * 4), slice(WIDE * 4, -WIDE * 4))
    flat = torch.full((1, 3, 64, 64), 77 / 255)
    steps = torch.arange(64.0) / 255
    ramp = (steps[:, None] + 2 * steps).expand(1, 3, -1, -1)
    for picture in (flat, ramp):
        assert float(drawn(net, picture)[inner].abs().max()) < 1e-4
    assert float(drawn(net, noise(side=64))[inner].abs().max()) > 1e-3


def test_flat_pictures_stay_without_grain_in_half_precision() -> None:
    net = grained(1.0).to(torch.bfloat16)
    flat = torch.full((1, 3, 64, 64), 77 / 255, dtype=torch.bfloat16)
    assert float(drawn(net, flat)[..., 96:-96, 96:-96].abs().max()) < 1e-4


def test_grain_is_as_strong_as_said_and_gray_and_without_mean() -> None:
    net = grained(0.5, seed=3)
    grain = torch.cat([drawn(net, noise(seed)) for seed in range(6)])[..., 32:-32, 32:-32]
    wanted = module.START * UNIT * 0.5
    # Fields are within -1..1, not always at the limits.
    assert 0.6 * wanted < float(grain.std()) < 1.05 * wanted
    assert float(grain.mean().abs()) < 0.05 * wanted
    assert torch.allclose(grain[:, 0], grain[:, 1], atol=1e-6)
    assert torch.allclose(grain[:, 0], grain[:, 2], atol=1e-6)


def test_grain_shows_no_grid_and_does_not_repeat() -> None:
    net = grained(1.0)
    grain = torch.cat([drawn(net, noise(seed, 96)) for seed in range(4)])[:, 0, 32:-32, 32:-32]
    power = float(grain.square().mean())
    strength = grain.unflatten(1, (-1, 4)).unflatten(3, (-1, 4)).square().mean((0, 1, 3)).sqrt()
    assert float(strength.max() / strength.min()) < 1.25
    for turned in (grain, grain.transpose(1, 2)):
        steps = turned.diff(dim=2).abs().mean((0, 1))[: turned.shape[2] // 4 * 4 - 4]
        by_place = steps.view(-1, 4).mean(0)
        # Of the grain alone; repeated pixels have no steps but at their edges.
        assert float(by_place.max() / by_place.min()) < 1.6
        for shift in (4, 8, 12):
            again = (turned[..., shift:] * turned[..., :-shift]).mean()
            # Blots without a sum are a little unlike their neighbours; a mesh would be like them.
            assert -0.5 * power < float(again) < 0.2 * power


def test_strength_scales_what_is_drawn() -> None:
    """Where the field is 1 the blot is drawn with the strength, where it is -1 with less it."""
    weak, strong = grained(1.0), grained(1.0)
    convs = strong.architecture.convs
    last = strong.body[2 * convs]
    last.bias[-2 * FIELDS :] += module.START
    x = noise()
    assert torch.allclose(parts(strong, x).strength, 2 * parts(weak, x).strength, atol=1e-5)
    assert float(drawn(strong, x).std() / drawn(weak, x).std()) == pytest.approx(2, rel=0.1)


def test_blots_have_no_sum_and_even_squares() -> None:
    for scale in (2, 4):
        taps = module._last_filters(scale)
        assert taps.shape == (3 * scale**2, FIELDS, 3, 3)
        assert torch.allclose(taps.square().sum((1, 2, 3)), torch.ones(3 * scale**2), atol=1e-4)
        gray = taps[: scale**2]
        assert float(gray.sum((0, 2, 3)).abs().max()) < 1e-3


def test_a_blot_is_whole_across_input_pixels() -> None:
    """Its steps at the edges of input pixels are no larger than those within."""
    taps = module._last_filters(4)[:16]
    impulses = torch.eye(FIELDS)[:, :, None, None] * F.pad(torch.ones(1, 1, 1, 1), (2, 2, 2, 2))
    blots = F.pixel_shuffle(F.conv2d(impulses, taps, padding=1), 4)[:, 0]
    assert float(blots[:, :4].abs().max()) == 0
    assert float(blots[:, 4:16, 4:16].abs().min()) > 0
    for turned in (blots, blots.transpose(1, 2)):
        steps = turned.diff(dim=1).abs().mean((0, 2))[4:15]
        edges, within = steps[[3, 7]].mean(), steps[[0, 1, 2, 4, 5, 6, 8, 9, 10]].mean()
        assert float(edges) < 1.5 * float(within)


def test_sowing_leaves_the_most_heeded_channels_and_the_rest_of_the_picture() -> None:
    net = network()
    hidden = net.body[:2](noise())
    width = carriers(net)[0]
    after = net.body[2].weight.square().sum((0, 2, 3)) * net.body[0].weight.square().sum((1, 2, 3))
    kept = after.argsort(descending=True, stable=True)[:-width]
    sow(net, 0.5)
    assert torch.allclose(net.body[:2](noise())[:, :-width], hidden[:, kept], atol=1e-6)


def test_sowing_twice_keeps_what_was_learned_and_sets_the_share() -> None:
    net = grained(0.5)
    net.body[4].weight[0] += 1
    learned = {key: value.clone() for key, value in net.state_dict().items()}
    x = noise()
    before = drawn(net, x)
    sow(net, 1.0)
    assert torch.allclose(drawn(net, x), 2 * before, atol=1e-6)
    sow(net, 0.5)
    assert all(torch.equal(value, learned[key]) for key, value in net.state_dict().items())


def test_sowing_gives_the_same_network_each_time() -> None:
    first, second = grained().state_dict(), grained().state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_grain_is_recognised_in_half_precision_too() -> None:
    assert not has_grain(network())
    assert has_grain(grained())
    assert has_grain(grained().half())
    assert has_grain(grained().bfloat16())
    assert not has_grain(torch.nn.Identity())


def test_networks_that_cannot_have_it_are_refused() -> None:
    for net in (network(convs=4), network(features=8)):
        assert not can_have_grain(net)
        with pytest.raises(ValueError, match="Compact"):
            sow(net, 0.5)
    relu = CompactArchitecture(4, 6, 32, "relu").build()
    assert not can_have_grain(relu)
    assert not has_grain(relu)


def test_training_moves_all_but_what_is_fixed() -> None:
    net = grained().requires_grad_(True)
    fixed = [b.detach().clone() for b in fields(net)]
    before = {key: value.clone() for key, value in net.state_dict().items()}
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    for seed in range(3):
        found = WithParts(net)(noise(seed))
        optimiser.zero_grad()
        loss = found.picture.square().mean() + (found.strength - 0.1).square().mean()
        loss.backward()
        hold_grain(net)
        optimiser.step()
    assert all(torch.equal(a, b) for a, b in zip(fixed, fields(net), strict=True))
    ahead = net.body[2 * net.architecture.convs]
    rows = ahead.weight.detach()[-2 * FIELDS :, :-FIELDS]
    assert torch.equal(rows, rows[:1].expand_as(rows)), "one strength for all fields"
    assert bool(rows.any())
    assert len(set(ahead.bias.detach()[-2 * FIELDS :].tolist())) == 1
    changed = {
        key for key, value in net.state_dict().items() if not torch.equal(value, before[key])
    }
    assert changed == set(before)


def fields(net: Compact) -> list[torch.Tensor]:
    """All that must never change: fields, their way, and the blots."""
    found = []
    widths = carriers(net)
    for layer, width in enumerate(widths):
        conv, slope = net.body[2 * layer], net.body[2 * layer + 1]
        final = layer == len(widths) - 1
        weight = conv.weight[-width:, -FIELDS:] if final else conv.weight[-width:]
        found += [weight, slope.weight[-width:]] + ([] if final else [conv.bias[-width:]])
    found.append(net.body[2 * len(widths)].weight[:, -2 * FIELDS :])
    return found
