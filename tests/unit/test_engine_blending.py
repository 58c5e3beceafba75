"""Image interpolation: bit-exact ends, the middle as arithmetic says, every kind of image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from realesr_cli import upscale
from realesr_cli.engine import api
from realesr_cli.engine import guard as module
from realesr_cli.engine.estimate import ImageShape
from realesr_cli.engine.forward import blend, require_same_scale
from realesr_cli.engine.guard import Forwards
from realesr_cli.engine.settings import EngineSettings, UpscaleSettings
from realesr_cli.engine.upscaler import Upscaler
from realesr_cli.errors import ConfigError, RealesrWarning
from realesr_cli.image.types import Image
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.nets.rrdbnet import RRDBArchitecture
from realesr_cli.weights.model_files import model_metadata, save_safetensors

SHALLOW, DEEP = CompactArchitecture(2, 1, 8), CompactArchitecture(2, 4, 8)
"""The second needs more overlap than the first."""


def network(architecture, seed):
    torch.manual_seed(seed)
    net = architecture.build().eval()
    for parameter in net.parameters():
        parameter.data.mul_(0.5)
    return net


def make_image(channels=3, dtype=np.uint8, alpha=False, size=(25, 35)):
    """Middle grays, so that no network leaves the range."""
    rng = np.random.default_rng(5)
    top = 1.0 if dtype == np.float32 else np.iinfo(dtype).max
    pixels = ((0.35 + 0.3 * rng.random((*size, channels))) * top).astype(dtype)
    shade = ((0.35 + 0.3 * rng.random(size)) * top).astype(dtype) if alpha else None
    return Image(pixels, shade)


ENGINE = EngineSettings("cpu", "fp32", 16)


@pytest.fixture(scope="module")
def three():
    first, second = network(SHALLOW, 1), network(DEEP, 2)
    return (
        Upscaler(first, ENGINE), Upscaler(second, ENGINE), Upscaler(first, ENGINE, partner=second),
    )  # fmt: skip


def planes(image):
    """Pixels, and alpha where there is one, as floats."""
    parts = [image.pixels] + ([image.alpha[..., None]] if image.alpha is not None else [])
    return np.concatenate(parts, 2).astype(np.float64)


ALONE = {}


def alone(upscaler, image, look):
    """What one network makes of an image, computed once."""
    key = (id(upscaler), id(image), *look.items())
    if key not in ALONE:
        ALONE[key] = planes(upscaler(image, UpscaleSettings(**look)))
    return ALONE[key]


KINDS = [
    make_image(), make_image(1), make_image(alpha=True), make_image(1, np.uint16, alpha=True),
    make_image(dtype=np.float32),
]  # fmt: skip


@pytest.mark.parametrize("image", KINDS)
@pytest.mark.parametrize("look", [{}, {"tta": True}, {"scale": 3.3}, {"color_fix": True}])
def test_the_ends_are_bit_exactly_the_networks_alone(three, image, look):
    first, second, both = three
    for share, one in ((0, first), (1, second)):
        found = both(image, UpscaleSettings(blend=share, **look))
        assert np.array_equal(planes(found), alone(one, image, look))


@pytest.mark.parametrize("image", KINDS)
@pytest.mark.parametrize("share", [None, 0.3, 0.9])
@pytest.mark.parametrize("look", [{}, {"tta": True}, {"scale": 2.7}, {"strength": 0.6}])
def test_the_middle_is_the_mean_with_these_weights(three, image, share, look):
    first, second, both = three
    found = planes(both(image, UpscaleSettings(blend=share, **look)))
    weight = 0.5 if share is None else share
    one, other = alone(first, image, look), alone(second, image, look)
    top = 1 if image.pixels.dtype == np.float32 else np.iinfo(image.pixels.dtype).max
    # The parts were rounded already.
    limit = 1.01 if top > 1 else 1e-5
    assert np.abs(found - ((1 - weight) * one + weight * other)).max() <= limit


def test_mixing_is_in_float_before_rounding():
    """Of 100 and 101 the half is 100.5, which no integers have."""
    levels = [torch.full((1, 3, 2, 2), value / 255) for value in (100, 101)]
    mixed = blend(lambda x: levels[0].clone(), lambda x: levels[1].clone(), 0.5)
    assert (mixed(torch.zeros(1, 3, 1, 1)) * 255).flatten().tolist() == pytest.approx([100.5] * 12)


def test_each_image_is_clamped_as_it_would_be_alone():
    wild = torch.tensor([-3.0, 0.5, 7.0]).view(1, 3, 1, 1)
    mixed = blend(lambda x: wild.clone(), lambda x: torch.full_like(wild, 0.5), 0.5)
    assert mixed(torch.zeros(1, 3, 1, 1)).flatten().tolist() == [0.25, 0.5, 0.75]


@pytest.mark.parametrize("second", [DEEP, RRDBArchitecture(2, 1, 8, 4, 2)])
def test_tiles_suit_both_networks(second):
    """More overlap than the first needs alone, and windows at even pixels for pixel-unshuffle."""
    nets = network(SHALLOW, 1), network(second, 2)
    tiled, whole = (
        Upscaler(nets[0], EngineSettings("cpu", "fp32", tile), partner=nets[1]) for tile in (15, 0)
    )
    assert Upscaler(nets[0], ENGINE).policy.overlap < tiled.policy.overlap
    found, expected = (up(make_image(size=(50, 40))).pixels.astype(int) for up in (tiled, whole))
    assert np.abs(found - expected).max() <= 1


def test_the_cost_is_that_of_both(three):
    _, _, both = three
    both(make_image())
    shape = ImageShape(100, 100)
    one, two = (both.estimate(shape, UpscaleSettings(blend=b)) for b in (0, None))
    assert two.network_pixels > 1.5 * one.network_pixels >= 1.5 * 100 * 100
    assert two.seconds / one.seconds == pytest.approx(two.network_pixels / one.network_pixels)
    bytes_ = [both.estimate(shape, UpscaleSettings(blend=b)).peak_bytes for b in (1, None)]
    assert bytes_[1] > bytes_[0]


def test_memory_running_out_in_the_second_network_loses_nothing(three, monkeypatch):
    usual = module.build_forwards

    def small(net, *chosen):
        forwards = usual(net, *chosen)
        if net.architecture != DEEP:
            return forwards

        def limited(x):
            if x.shape[2] * x.shape[3] > 4000:
                raise MemoryError
            return forwards.fast(x)

        return Forwards(limited, scale=2)

    monkeypatch.setattr(module, "build_forwards", small)
    engine = EngineSettings("cpu", "fp32", 0)
    made = Upscaler(network(SHALLOW, 1), engine, partner=network(DEEP, 2))
    large, look = make_image(size=(120, 60)), UpscaleSettings(blend=0.3)
    with pytest.warns(RealesrWarning, match="smaller tiles"):
        found = made(large, look).pixels.astype(int)
    assert np.abs(found - three[2](large, look).pixels).max() <= 1


def test_what_cannot_be_blended_is_refused(three):
    first, _, _ = three
    with pytest.raises(ConfigError, match=r"x4.*x2"):
        Upscaler(network(SHALLOW, 1), partner=network(CompactArchitecture(4, 2, 8), 1))
    require_same_scale(("a", 2), ("b", 2))
    with pytest.raises(ConfigError, match=r"b \(x2\) with a \(x4\)"):
        require_same_scale(("a", 4), ("b", 2))
    with pytest.raises(ConfigError, match=r"blend = 0\.3 without a second model"):
        first(make_image(), UpscaleSettings(blend=0.3))
    for share in (-0.01, 1.01, float("nan")):
        with pytest.raises(ConfigError, match="blend: "):
            UpscaleSettings(blend=share)


# --- upscale() ----------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    nets = {"a": network(SHALLOW, 1), "b": network(DEEP, 2)}
    nets["c"] = network(CompactArchitecture(4, 2, 8), 3)
    for name, net in nets.items():
        path = tmp_path / f"{name}.safetensors"
        save_safetensors(path, net.state_dict(), model_metadata(net.architecture))
    return {name: tmp_path / f"{name}.safetensors" for name in nets}


def test_upscale_blends_two_models(files, three):
    pixels = make_image().pixels
    call = {"model": files["a"], "engine": ENGINE}
    found = upscale(pixels, blend_model=files["b"], blend=0.25, **call)
    assert np.array_equal(found, three[2](Image(pixels), UpscaleSettings(blend=0.25)).pixels)
    half = upscale(pixels, blend_model=str(files["b"]), **call)
    assert np.array_equal(half, three[2](Image(pixels)).pixels)
    alone = upscale(pixels, blend_model=files["b"], blend=0, **call)
    assert np.array_equal(alone, upscale(pixels, **call))


def test_networks_stay_loaded_by_both_names(files):
    first = api.load(files["a"], blend_model=files["b"])
    assert api.load(files["a"], blend_model=files["b"]) is first
    assert api.load(files["a"]) is not first
    assert api.load(files["b"], blend_model=files["a"]) is not first


def test_upscale_refuses_what_cannot_be(files, three):
    pixels = make_image().pixels
    with pytest.raises(ConfigError, match=r"c \(x4\) with a \(x2\)"):
        upscale(pixels, model=files["a"], blend_model=files["c"])
    with pytest.raises(ConfigError, match="without a second model"):
        upscale(pixels, model=files["a"], blend=0.5)
    with pytest.raises(ConfigError, match="partner=other"):
        upscale(pixels, model=three[0], blend_model=files["b"])
