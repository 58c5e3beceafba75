"""The engine loses no pixel, tiles invisibly, and leaves the integers it should."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from realesr_cli.engine.forward import add_tta
from realesr_cli.engine.sweep import PostProcess, upscale_bands
from realesr_cli.engine.tiling import Axis, Grid
from realesr_cli.engine.workers import get_workers
from realesr_cli.errors import CancelledError
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.nets.rrdbnet import RRDBArchitecture


def upscale_tiled(forward, source, grid, post, **options):
    return np.concatenate(list(upscale_bands(forward, source, grid, post, **options)))


def nearest(scale):
    """The simplest network: every pixel repeated."""
    return lambda x: x.repeat_interleave(scale, 2).repeat_interleave(scale, 3).clone()


def grid(source, scale, *, tile=0, overlap=0, blend=0, out=None, multiple=1, batch=1) -> Grid:
    height, width = source.shape[:2]
    sizes = out or (height * scale, width * scale)
    return Grid(
        Axis(height, sizes[0], tile, overlap, blend, multiple),
        Axis(width, sizes[1], tile, overlap, blend, multiple),
        scale,
        batch,
    )


def image(height, width, channels=3, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    if dtype == np.float32:
        return rng.random((height, width, channels)).astype(np.float32)
    top = np.iinfo(dtype).max
    return rng.integers(0, top, (height, width, channels), endpoint=True).astype(dtype)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2, 4]), st.integers(0, 17),
    st.integers(0, 9), st.integers(0, 9), st.sampled_from([1, 2, 4]), st.integers(1, 4),
    st.sampled_from([np.uint8, np.uint16, np.float32]), st.sampled_from([1, 3]),
)  # fmt: skip
def test_no_pixel_is_lost_or_repeated(
    height, width, scale, tile, overlap, blend, multiple, batch, dtype, channels
):
    """With a network that only repeats pixels, any cutting gives exactly the repeated image."""
    source = image(height, width, channels, dtype)
    cut = grid(
        source, scale, tile=tile, overlap=overlap, blend=min(blend, overlap),
        multiple=multiple, batch=batch,
    )  # fmt: skip
    result = upscale_tiled(nearest(scale), source, cut, PostProcess())
    expected = source.repeat(scale, 0).repeat(scale, 1)
    assert result.dtype == dtype
    if channels == 3 and dtype != np.float32:
        np.testing.assert_array_equal(result, expected)
    else:
        # Luma of three equal channels, or blending, rounds in the last bit of a float.
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def randomized(architecture):
    torch.manual_seed(1)
    net = architecture.build().eval()
    for parameter in net.parameters():
        parameter.data.uniform_(-0.3, 0.3)
    return net


@pytest.mark.parametrize(
    "architecture",
    [
        CompactArchitecture(4, 3, 8),
        CompactArchitecture(2, 2, 8),
        RRDBArchitecture(4, 1, 8, 4),
        RRDBArchitecture(2, 1, 8, 4, 2),
        RRDBArchitecture(1, 1, 8, 4, 4),
    ],
)
@pytest.mark.parametrize("size", [(75, 120), (121, 61), (1, 130), (130, 1)])
def test_tiled_equals_untiled_from_the_receptive_radius_on(architecture, size):
    net = randomized(architecture)
    source = image(*size)
    multiple = architecture.multiple
    radius = architecture.receptive_radius

    def run(tile, overlap):
        cut = grid(source, net.scale, tile=tile, overlap=overlap, multiple=multiple)
        return upscale_tiled(net, source, cut, PostProcess()).astype(int)

    whole = run(0, 0)
    assert np.abs(run(24, radius) - whole).max() <= 1
    # The bound is sharp: without context the seams are there.
    assert np.abs(run(24, 0) - whole).max() > 1


def test_blending_hides_what_too_little_overlap_leaves():
    net = randomized(CompactArchitecture(4, 6, 8))
    source = image(96, 96)

    def run(**cut):
        return upscale_tiled(net, source, grid(source, 4, **cut), PostProcess()).astype(int)

    whole = run()
    hard = np.abs(run(tile=24, overlap=4) - whole)
    soft = np.abs(run(tile=24, overlap=4, blend=2) - whole)
    jump = [np.abs(np.diff(d, axis=1))[:, 95].max() for d in (hard, soft)]
    assert jump[1] < jump[0]


@pytest.mark.parametrize("out", [(50, 33), (130, 199), (40, 40), (400, 10)])
def test_any_output_size_is_the_same_tiled(out):
    source = image(40, 52)
    cut = grid(source, 4, tile=13, overlap=12, out=out)
    tiled = upscale_tiled(nearest(4), source, cut, PostProcess())
    whole = upscale_tiled(nearest(4), source, grid(source, 4, out=out), PostProcess())
    assert tiled.shape == (*out, 3)
    assert np.abs(tiled.astype(int) - whole).max() <= 1


def test_reduction_is_antialiased_before_rounding():
    """A fine checkerboard reduced to half is flat gray, not a moiré."""
    source = (np.indices((32, 32)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    cut = grid(source, 4, out=(16, 16))
    result = upscale_tiled(nearest(4), source, cut, PostProcess())
    inner = result[2:-2, 2:-2].astype(float)
    assert inner.std() < 2
    assert abs(inner.mean() - 127.5) < 1


def test_strength_mixes_with_the_resampled_input():
    source = image(20, 24)

    def run(strength, forward):
        post = PostProcess(strength=strength)
        return upscale_tiled(forward, source, grid(source, 4, overlap=5), post).astype(int)

    def black(x):
        return torch.zeros(1, 3, x.shape[2] * 4, x.shape[3] * 4)

    plain = run(1.0, None)
    assert np.array_equal(run(0.0, black), plain)
    assert run(1.0, black).max() == 0
    assert np.abs(run(0.25, black) - plain * 0.75).max() <= 1


def test_color_fix_takes_large_scale_color_from_the_input():
    source = image(64, 64) // 4 + 90

    def tinted(x):
        return (nearest(4)(x) * torch.tensor([0.9, 1.0, 1.05]).view(1, 3, 1, 1)).clamp(0, 1)

    def means(post):
        cut = grid(source, 4, tile=24, overlap=20)
        return upscale_tiled(tinted, source, cut, post).mean((0, 1))

    off = np.abs(means(PostProcess()) - source.mean((0, 1)))
    fixed = np.abs(means(PostProcess(color_fix=True)) - source.mean((0, 1)))
    assert off.max() > 5
    assert fixed.max() < 0.6


def test_gray_stays_gray_and_sixteen_bits_stay_sixteen():
    source = np.arange(4096, dtype=np.uint16).reshape(64, 64, 1) * 16
    result = upscale_tiled(nearest(2), source, grid(source, 2, tile=20, overlap=3), PostProcess())
    assert result.shape == (128, 128, 1)
    assert result.dtype == np.uint16
    assert len(np.unique(result)) == 4096


def test_curves_are_applied_before_and_after():
    source = image(8, 8)
    post = PostProcess(decode=lambda x: x**0.5, encode=lambda x: x**2)
    seen = []

    def forward(x):
        seen.append(x.clone())
        return nearest(2)(x)

    result = upscale_tiled(forward, source, grid(source, 2), post)
    np.testing.assert_array_equal(result[::2, ::2], source)
    expected = (source.astype(np.float32) / 255) ** 0.5
    np.testing.assert_allclose(seen[0][0].permute(1, 2, 0).numpy(), expected, atol=1e-6)


def test_progress_counts_tiles_and_stopping_stops():
    source = image(40, 40)
    done = []
    cut = grid(source, 2, tile=10)
    with pytest.raises(CancelledError):
        upscale_tiled(
            nearest(2), source, cut, PostProcess(), progress=lambda *now: done.append(now),
            stop_requested=lambda: len(done) >= 3,
        )  # fmt: skip
    assert done == [(1, 16), (2, 16), (3, 16)]


def test_batches_hold_equal_windows():
    source = image(64, 64)
    shapes = []

    def forward(x):
        shapes.append(tuple(x.shape))
        return nearest(2)(x)

    upscale_tiled(forward, source, grid(source, 2, tile=8, overlap=4, batch=3), PostProcess())
    assert max(s[0] for s in shapes) == 3
    assert sum(s[0] for s in shapes) == 64


def test_tta_averages_eight_ways():
    net = randomized(CompactArchitecture(2, 2, 8))
    x = torch.rand(1, 3, 9, 14)
    with torch.inference_mode():
        y = add_tta(net)(x)
        turned = add_tta(net)(x.flip(3).transpose(2, 3)).transpose(2, 3).flip(3)
        # The mean over the whole group does not depend on how the image lies.
        torch.testing.assert_close(y, turned, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(y, net(x), atol=1e-4)


def test_any_rounding_is_to_the_nearest():
    source = np.full((4, 4, 3), 100, np.uint8)
    for level, expected in ((100.49, 100), (100.51, 101), (-3.0, 0), (300.0, 255)):
        constant = torch.full((1, 3, 8, 8), level / 255)
        result = upscale_tiled(
            lambda _, y=constant: y.clone(), source, grid(source, 2), PostProcess()
        )
        assert (result == expected).all()


@pytest.mark.parametrize(
    "cut", [{"tile": 13, "overlap": 5, "blend": 3}, {"tile": 13, "overlap": 5}]
)
def test_workers_change_nothing(cut):
    """Tiles are computed side by side and rows finished by several threads, in any order."""
    source = image(150, 40)
    plain = upscale_tiled(nearest(4), source, grid(source, 4, **cut), PostProcess(strength=0.7))
    several = dataclasses.replace(grid(source, 4, **cut), at_once=3)
    post = PostProcess(strength=0.7)
    threads = set()

    def forward(x):
        threads.add(threading.get_ident())
        return nearest(4)(x)

    result = upscale_tiled(forward, source, several, post, workers=get_workers(3))
    assert np.array_equal(result, plain)
    assert threading.get_ident() not in threads
