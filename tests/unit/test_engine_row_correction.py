"""Back-projection over tiles: as on the whole image, rounded once, with few rows held."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from realesr_cli.engine.estimate import ImageShape
from realesr_cli.engine.row_correction import RowCorrection, count_held_rows
from realesr_cli.engine.settings import EngineSettings, UpscaleSettings
from realesr_cli.engine.sweep import PostProcess, upscale_bands
from realesr_cli.engine.tiling import Axis, Grid
from realesr_cli.engine.upscaler import Upscaler
from realesr_cli.errors import ConfigError, UnsupportedImageError
from realesr_cli.image.types import Image
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.ops.back_projection import KERNELS, back_project, make_axis_steps
from realesr_cli.ops.resize import resize


def upscale_tiled(forward, source, grid, post, **options):
    return np.concatenate(list(upscale_bands(forward, source, grid, post, **options)))


def nearest(scale):
    return lambda x: x.repeat_interleave(scale, 2).repeat_interleave(scale, 3).clone()


def make_image(height, width, channels=3, dtype=np.uint8, seed=0):
    """Smooth, away from black and white, so that clamping has no part in it."""
    rng = np.random.default_rng(seed)
    small = torch.from_numpy(rng.random((1, channels, height // 4 + 2, width // 4 + 2)))
    values = resize(small, (height, width), "triangle")[0].permute(1, 2, 0).numpy() * 0.6 + 0.2
    if dtype == np.float32:
        return values.astype(np.float32)
    return np.round(values * np.iinfo(dtype).max).astype(dtype)


def grid(source, scale, *, tile=0, overlap=0, blend=0, out=None):
    height, width = source.shape[:2]
    sizes = out or (height * scale, width * scale)
    return Grid(
        Axis(height, sizes[0], tile, overlap, blend), Axis(width, sizes[1], tile, overlap, blend),
        scale,
    )  # fmt: skip


def floats(source):
    top = 1 if source.dtype == np.float32 else np.iinfo(source.dtype).max
    return torch.from_numpy(source.astype(np.float64) / top).permute(2, 0, 1)[None]


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 70), st.integers(1, 70), st.sampled_from([1.3, 2, 2.5, 4]), st.integers(0, 33),
    st.sampled_from([1, 2, 8, 20]), st.sampled_from(KERNELS), st.sampled_from([1, 3]),
)  # fmt: skip
def test_any_cutting_gives_the_correction_of_the_whole_image(
    height, width, ratio, tile, iterations, kernel, channels
):
    source = make_image(height, width, channels, np.float32)
    out = tuple(max(size + 1, round(size * ratio)) for size in (height, width))

    def run(tile, post):
        cut = grid(source, 4, tile=tile, overlap=12, blend=2, out=out)
        return upscale_tiled(nearest(4), source, cut, post)

    post = PostProcess(back_project=iterations, kernel=kernel)
    found = run(tile, post)
    enlarged = floats(run(tile, PostProcess()))
    expected = back_project(enlarged, floats(source), iterations=iterations, kernel=kernel)
    np.testing.assert_allclose(floats(found), expected.clamp(0, 1), atol=2e-6)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(75, 130), (130, 75)])
def test_tiles_do_not_show(kernel, dtype, channels, size):
    torch.manual_seed(1)
    architecture = CompactArchitecture(4, 3, 8)
    net = architecture.build().eval()
    source = make_image(*size, channels, dtype)
    post = PostProcess(back_project=20, kernel=kernel)

    def run(tile):
        cut = grid(source, 4, tile=tile, overlap=architecture.receptive_radius)
        return upscale_tiled(net, source, cut, post).astype(int)

    assert np.abs(run(17) - run(0)).max() <= 1


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("factor", [1.7, 2, 3, 4])
@pytest.mark.parametrize(("dtype", "limit"), [(np.uint8, 60), (np.uint16, 75)])
def test_the_result_reduced_again_is_the_image(kernel, factor, dtype, limit):
    """In 8 bits as near as rounding lets it be, in 16 nearer."""
    torch.manual_seed(0)
    upscaler = Upscaler(CompactArchitecture(4, 2, 8).build(), EngineSettings("cpu", "fp32", 20))
    image = Image(make_image(40, 52, dtype=dtype))

    def error(iterations):
        result = upscaler(image, UpscaleSettings(factor, back_project=iterations)).pixels
        return resize(floats(result), (40, 52), "matlab") - floats(image.pixels)

    levels = [-10 * np.log10(float(error(n).square().mean())) for n in (0, 4, 40)]
    assert levels[0] < levels[1] < levels[2]
    assert levels[2] > limit


def test_the_kernel_asked_for_is_used():
    source = make_image(20, 24)
    cut = grid(source, 4)
    runs = [
        upscale_tiled(nearest(4), source, cut, PostProcess(back_project=2, kernel=k))
        for k in KERNELS
    ]
    assert (runs[0] != runs[1]).any()


def test_a_profile_is_corrected_in_the_curve_the_network_works_in():
    source = make_image(12, 14, dtype=np.float32)
    post = PostProcess(back_project=20, decode=lambda x: x**0.5, encode=lambda x: x**2)
    found = floats(upscale_tiled(nearest(4), source, grid(source, 4), post)).sqrt()
    error = resize(found, (12, 14), "matlab") - floats(source).sqrt()
    assert error.abs().max() < 1e-3


def test_alpha_is_left_as_it_is_and_gray_is_not():
    """A correction of alpha would ring around hard edges: ghosts beside a cut-out."""
    torch.manual_seed(0)
    upscaler = Upscaler(CompactArchitecture(2, 2, 8).build(), EngineSettings("cpu", "fp32"))
    alpha = np.zeros((30, 40), np.uint8)
    alpha[:, 20:] = 255
    image = Image(make_image(30, 40, 1), alpha)
    plain = upscaler(image)
    found = upscaler(image, UpscaleSettings(back_project=20))
    assert np.array_equal(found.alpha, plain.alpha)
    assert (found.pixels != plain.pixels).any()
    assert found.pixels.shape == (60, 80, 1)


def test_zero_iterations_are_no_correction():
    torch.manual_seed(0)
    upscaler = Upscaler(CompactArchitecture(2, 2, 8).build(), EngineSettings("cpu", "fp32", 16))
    image = Image(make_image(30, 40))
    found = upscaler(image, UpscaleSettings(back_project=0))
    assert np.array_equal(found.pixels, upscaler(image).pixels)


@pytest.mark.parametrize("iterations", [1, 20, 100])
@pytest.mark.parametrize("ratio", [1.1, 2, 4])
@pytest.mark.parametrize("kernel", KERNELS)
def test_only_rows_not_yet_settled_are_held(iterations, ratio, kernel):
    size, out = 1200, int(1200 * ratio)
    axes = make_axis_steps(size, out, kernel), make_axis_steps(3, 5, kernel)
    torch.manual_seed(0)
    original, enlarged = torch.rand(1, size, 3), torch.rand(1, out, 5)
    given, most = [], 0
    correction = RowCorrection(axes, iterations, lambda a, b: original[:, a:b])
    for start in range(0, out, 64):
        given += correction.add(enlarged[:, start : start + 64])
        done = sum(rows.shape[1] for rows in given)
        most = max(most, min(start + 64, out) - done)
    assert done == out
    assert most <= count_held_rows(iterations, ratio)
    expected = back_project(enlarged[None], original[None], iterations=iterations, kernel=kernel)
    torch.testing.assert_close(torch.cat(given, 1), expected[0], atol=1e-5, rtol=0)


def test_rows_held_are_part_of_the_estimate():
    upscaler = Upscaler(CompactArchitecture(4, 2, 8).build(), EngineSettings("cpu", "fp32", 64))
    shape = ImageShape(2000, 1000)
    plain = upscaler.estimate(shape)
    found = upscaler.estimate(shape, UpscaleSettings(back_project=20))
    assert found.peak_bytes - plain.peak_bytes == count_held_rows(20, 4) * 4000 * 3 * 4
    assert found.tiles == plain.tiles
    assert found.overlap == plain.overlap


def test_what_cannot_be_corrected_is_refused():
    with pytest.raises(ConfigError, match="back_project = 5 with scale = 1"):
        UpscaleSettings(scale=1, back_project=5)
    with pytest.raises(ConfigError, match="got -1"):
        UpscaleSettings(back_project=-1)
    with pytest.raises(ConfigError, match="got 101"):
        UpscaleSettings(back_project=101)
    with pytest.raises(ConfigError, match=r"back_project_kernel: .*box"):
        UpscaleSettings(back_project=1, back_project_kernel="box")
    with pytest.raises(ConfigError, match="back_project_kernel = 'reverse'"):
        UpscaleSettings(back_project_kernel="reverse")
    upscaler = Upscaler(CompactArchitecture(2, 2, 8).build(), EngineSettings("cpu", "fp32"))
    with pytest.raises(UnsupportedImageError, match="40x30 would become 20x15"):
        upscaler(Image(make_image(30, 40)), UpscaleSettings(width=20, back_project=3))
    with pytest.raises(UnsupportedImageError, match="80x30"):
        upscaler(Image(make_image(30, 40)), UpscaleSettings(width=80, height=30, back_project=3))
