"""Upscaler and `upscale()`: channels, alpha, profiles, kinds, threads, plans."""

from __future__ import annotations

import io
import os
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from realesr_cli import upscale
from realesr_cli.engine import api, policy
from realesr_cli.engine import guard as module
from realesr_cli.engine.estimate import ImageShape
from realesr_cli.engine.settings import EngineSettings, UpscaleSettings
from realesr_cli.engine.upscaler import Upscaler
from realesr_cli.errors import (
    CancelledError,
    CheckpointFormatError,
    ConfigError,
    OutOfMemoryError,
    RealesrWarning,
    UnsupportedImageError,
)
from realesr_cli.image.read import from_array, from_pil, read_image
from realesr_cli.image.types import Image
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.nets.rrdbnet import RRDBArchitecture
from realesr_cli.weights.model_files import model_metadata, save_safetensors


def network(architecture=CompactArchitecture(2, 2, 8)):  # noqa: B008
    torch.manual_seed(0)
    net = architecture.build().eval()
    for parameter in net.parameters():
        parameter.data.mul_(0.3)
    return net


@pytest.fixture(scope="module")
def upscaler() -> Upscaler:
    return Upscaler(network(), EngineSettings("cpu", "fp32", 16))


def make_image(height=40, width=52, channels=3, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    small = rng.random((height // 4 + 2, width // 4 + 2, channels))
    smooth = small.repeat(4, 0).repeat(4, 1)[:height, :width]
    scale = 1 if np.issubdtype(dtype, np.floating) else np.iinfo(dtype).max
    values = smooth * scale
    return values.astype(dtype) if scale == 1 else np.round(values).astype(dtype)


def test_the_result_keeps_what_belongs_to_the_image(upscaler):
    image = Image(
        make_image(), icc=None, exif=b"II*\0\x08\0\0\0\0\0\0\0\0\0", xmp=b"<x/>", dpi=(72, 72),
        format="PNG",
    )  # fmt: skip
    result = upscaler(image)
    assert (result.height, result.width) == (80, 104)
    assert (result.exif, result.xmp, result.dpi) == (image.exif, image.xmp, image.dpi)
    assert result.pixels.dtype == np.uint8


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_gray_and_depth_are_kept(upscaler, channels, dtype):
    result = upscaler(Image(make_image(channels=channels, dtype=dtype)))
    assert result.pixels.shape == (80, 104, channels)
    assert result.pixels.dtype == dtype


def test_gray_is_what_equal_channels_give(upscaler):
    gray = make_image(channels=1)
    colored = upscaler(Image(gray.repeat(3, 2))).pixels @ [0.299, 0.587, 0.114]
    assert np.abs(upscaler(Image(gray)).pixels[..., 0] - colored).max() <= 1


def test_constant_alpha_needs_no_network(upscaler):
    done = []
    image = Image(make_image(), alpha=np.full((40, 52), 77, np.uint8))
    result = upscaler(image, progress=lambda *state: done.append(state))
    assert (result.alpha == 77).all()
    assert result.alpha.shape == (80, 104)
    assert done[-1][0] == done[-1][1] == upscaler.estimate(ImageShape(40, 52)).tiles


@pytest.mark.parametrize("way", ["model", "resize"])
def test_alpha_is_enlarged_and_color_bled_beneath(upscaler, way):
    """A hard-edged cut-out on black leaves no dark fringe in the opaque part."""
    pixels = np.zeros((40, 52, 3), np.uint8)
    alpha = np.zeros((40, 52), np.uint8)
    pixels[:, 26:] = (200, 150, 100)
    alpha[:, 26:] = 255
    clean = upscaler(Image(np.full((40, 52, 3), (200, 150, 100), np.uint8)))
    done = []
    result = upscaler(
        Image(pixels, alpha), UpscaleSettings(alpha=way), progress=lambda *s: done.append(s)
    )
    assert np.abs(result.pixels[8:-8, 52:-8].astype(int) - clean.pixels[8:-8, 52:-8]).max() <= 1
    assert result.alpha[20, 10] < 30
    assert result.alpha[20, 90] > 225
    assert done[-1][0] == done[-1][1]
    plan = upscaler.estimate(ImageShape(40, 52, alpha=True), UpscaleSettings(alpha=way))
    assert plan.passes == (2 if way == "model" else 1)
    assert plan.tiles == done[-1][1]


def test_kept_alpha_is_independent_of_color(upscaler):
    """Game textures use alpha as data: what lies under it is an image as any other."""
    pixels, alpha = make_image(), make_image(channels=1, seed=3)[..., 0]
    alpha[5:30, 8:40] = 0
    settings = UpscaleSettings(alpha="keep")
    done = []
    result = upscaler(Image(pixels, alpha), settings, progress=lambda *s: done.append(s))
    assert np.array_equal(result.pixels, upscaler(Image(pixels)).pixels)
    assert np.array_equal(result.alpha, upscaler(Image(alpha[..., None])).pixels[..., 0])
    plan = upscaler.estimate(ImageShape(40, 52, alpha=True), settings)
    assert (plan.passes, plan.tiles) == (2, done[-1][1])
    spread = upscaler(Image(pixels, alpha))
    assert (spread.pixels != result.pixels).any()


def test_any_factor_and_size(upscaler):
    image = Image(make_image())
    for settings, size in [
        (UpscaleSettings(scale=2.5), (100, 130)),
        (UpscaleSettings(scale=0.5), (20, 26)),
        (UpscaleSettings(width=77), (59, 77)),
        (UpscaleSettings(fit=(60, 60)), (46, 60)),
        (UpscaleSettings(max_side=300), (231, 300)),
    ]:
        assert upscaler(image, settings).pixels.shape == (*size, 3)


@pytest.mark.parametrize("scale", [0.7, 1.5, 2.7])
def test_tiles_are_exact_at_any_factor(scale):
    image = Image(np.random.default_rng(0).random((70, 50, 3)).astype(np.float32))
    net = network(CompactArchitecture(2, 1, 8))
    tiled, whole = (
        Upscaler(net, EngineSettings("cpu", "fp32", tile))(image, UpscaleSettings(scale)).pixels
        for tile in (16, 0)
    )
    np.testing.assert_allclose(tiled, whole, atol=2e-6)


def test_strength_zero_is_plain_resampling(upscaler):
    pixels = make_image(dtype=np.float32)
    result = upscaler(Image(pixels), UpscaleSettings(strength=0)).pixels
    for c in range(3):
        plane = Pillow.fromarray(np.ascontiguousarray(pixels[..., c]))
        expected = np.asarray(plane.resize((104, 80), Pillow.Resampling.BICUBIC))
        np.testing.assert_allclose(result[..., c], expected.clip(0, 1), atol=1e-5)


@pytest.mark.parametrize("tile", [0, 16])
@pytest.mark.parametrize(
    ("settings", "ratio"),
    [
        ({}, 2), ({"scale": 2.5}, 2.5), ({"scale": 0.5}, 0.5), ({"strength": 0.4}, 2),
        ({"color_fix": True}, 2), ({"tta": True}, 2),
    ],
)  # fmt: skip
def test_wrapped_edges_fit_each_other(tile, settings, ratio):
    """A rolled texture gives the rolled result, as if it had no edges at all."""
    made = Upscaler(network(), EngineSettings("cpu", "fp32", tile))
    pixels = make_image(40, 52, dtype=np.float32)
    wrapped = UpscaleSettings(pad="wrap", **settings)
    result = made(Image(pixels), wrapped).pixels
    shift = (4, 22)
    rolled = made(Image(np.roll(pixels, shift, (0, 1))), wrapped).pixels
    expected = np.roll(result, [round(s * ratio) for s in shift], (0, 1))
    np.testing.assert_allclose(rolled, expected, atol=2e-6)
    # The inner part is what it is without wrapping; the edges are not.
    plain = made(Image(pixels), UpscaleSettings(**settings)).pixels
    assert np.abs(plain - result).max() > 1e-3


def test_wrapping_keeps_the_phase_of_pixel_unshuffle():
    made = Upscaler(network(RRDBArchitecture(2, 1, 8, 4, 2)), EngineSettings("cpu", "fp32", 16, 40))
    pixels = make_image(24, 32, dtype=np.float32)
    wrapped = UpscaleSettings(pad="wrap")
    rolled = made(Image(np.roll(pixels, (6, 10), (0, 1))), wrapped).pixels
    expected = np.roll(made(Image(pixels), wrapped).pixels, (12, 20), (0, 1))
    np.testing.assert_allclose(rolled, expected, atol=2e-6)


def test_an_image_smaller_than_the_overlap_wraps_more_than_once(upscaler):
    single = upscaler(Image(np.full((1, 1, 3), 0.4, np.float32)), UpscaleSettings(pad="wrap"))
    many = upscaler(Image(np.full((9, 9, 3), 0.4, np.float32)), UpscaleSettings(pad="wrap"))
    np.testing.assert_allclose(single.pixels, many.pixels[:2, :2], atol=1e-6)


def test_wrapping_counts_in_the_estimate(upscaler):
    plain, wrapped = (
        upscaler.estimate(ImageShape(10, 10), UpscaleSettings(pad=pad)) for pad in ("none", "wrap")
    )
    assert wrapped.peak_bytes > plain.peak_bytes
    with pytest.raises(ConfigError, match="back_project"):
        UpscaleSettings(pad="wrap", back_project=5)


def test_tta_runs_and_differs(upscaler):
    image = Image(make_image())
    turned = upscaler(image, UpscaleSettings(tta=True)).pixels.astype(int)
    assert np.abs(turned - upscaler(image).pixels).mean() < 10


@pytest.mark.parametrize("scale", [2, 1])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 2), (33, 31)])
def test_pixel_unshuffle_takes_any_size(scale, size):
    net = network(RRDBArchitecture(scale, 1, 8, 4, 4 // scale))
    upscaler = Upscaler(net, EngineSettings("cpu", "fp32", 10, 6))
    result = upscaler(Image(make_image(*size)))
    assert result.pixels.shape == (size[0] * scale, size[1] * scale, 3)


def test_eight_threads_give_what_one_gives(upscaler):
    images = [Image(make_image(30 + i, 45 - i, seed=i)) for i in range(8)]
    alone = [upscaler(p).pixels for p in images]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda p: upscaler(p).pixels, images))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_cancel_between_tiles(upscaler):
    seen = []
    with pytest.raises(CancelledError):
        upscaler(
            Image(make_image()),
            progress=lambda *s: seen.append(s),
            stop_requested=lambda: len(seen) >= 2,
        )
    assert len(seen) == 2


def test_the_plan_is_what_happens(upscaler):
    seen = []
    settings = UpscaleSettings(scale=3)
    result = upscaler(Image(make_image()), settings, progress=lambda *s: seen.append(s))
    plan = upscaler.estimate(ImageShape(40, 52), settings)
    assert (plan.out_height, plan.out_width) == (result.height, result.width)
    assert seen == [(i + 1, plan.tiles) for i in range(plan.tiles)]
    assert plan.output_bytes == result.pixels.nbytes
    assert plan.peak_bytes > plan.output_bytes
    assert plan.seconds is not None


def test_auto_does_not_cut_what_fits():
    upscaler = Upscaler(network(), EngineSettings("cpu", "fp32"))
    assert upscaler.estimate(ImageShape(448, 640)).tiles == 1
    assert upscaler.estimate(ImageShape(2000, 3000)).tiles > 1


def test_the_process_keeps_its_threads():
    before = torch.get_num_threads()
    for backend in ("onednn", "torch"):
        upscaler = Upscaler(network(), EngineSettings("cpu", threads=before + 1, backend=backend))
        assert upscaler.policy.threads == before + 1
        upscaler(Image(make_image(20, 20)))
        assert torch.get_num_threads() == before


@pytest.mark.parametrize(("asked", "got"), [("fp16", "auto"), ("fp32", "fp32")])
def test_a_gpu_without_room_for_the_network_gives_way_to_the_cpu(monkeypatch, asked, got):
    card = policy.GpuInfo("cuda:0", "A card", 1 << 20, 8 << 30, (8, 0))
    monkeypatch.setattr(policy, "machine_info", lambda *_: policy.MachineInfo(gpus=(card,)))
    usual = module.build_forwards

    def full(net, chosen, machine):
        if chosen.device != "cpu":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return usual(net, chosen, machine)

    monkeypatch.setattr(module, "build_forwards", full)
    with pytest.warns(RealesrWarning, match="cuda:0 has no memory left"):
        made = Upscaler(network(), EngineSettings(precision=asked))
    plain = policy.choose(
        policy.MachineInfo(), EngineSettings("cpu", got), CompactArchitecture(2, 2, 8)
    )
    assert (made.policy.device, made.policy.precision) == ("cpu", plain.precision)
    assert made(Image(make_image())).width == 104


def test_other_errors_of_a_gpu_are_not_hidden(monkeypatch):
    def broken(net, chosen, machine):
        raise RuntimeError("driver gone")

    monkeypatch.setattr(module, "build_forwards", broken)
    with pytest.raises(RuntimeError, match="driver gone"):
        Upscaler(network())


@pytest.mark.parametrize("backend", ["torch", "onednn"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("layer", ["body.0.weight", "body.2.weight", "body.6.weight"])
def test_one_absurd_weight_is_an_error_and_not_a_garbage_image(backend, precision, layer):
    net = network()
    net.state_dict()[layer].view(-1)[3] = 1e30
    made = Upscaler(net, EngineSettings("cpu", precision, backend=backend))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RealesrWarning)
        with pytest.raises(CheckpointFormatError, match="corrupt"):
            made(Image(make_image()))


def test_deep_networks_measure_their_overlap():
    upscaler = Upscaler(network(RRDBArchitecture(4, 4, 8, 4)), EngineSettings("cpu", "fp32"))
    assert upscaler.architecture.receptive_radius > 48
    assert 8 <= upscaler.policy.overlap <= 72


@pytest.mark.parametrize("channels", [(1, 1), (1, 3), (3, 1), (4, 4), (4, 3)])
@pytest.mark.parametrize("backend", ["torch", "onednn"])
def test_networks_of_other_channels_take_any_image(channels, backend):
    if channels[0] in (1, channels[1]):
        architecture = CompactArchitecture(2, 2, 8, "prelu", *channels)
    else:
        architecture = RRDBArchitecture(2, 1, 8, 4, 1, False, *channels)
    made = Upscaler(network(architecture), EngineSettings("cpu", "fp32", backend=backend))
    for count in (1, 3):
        assert made(Image(make_image(channels=count))).pixels.shape == (80, 104, count)


# --- upscale() ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(12, 9), (12, 9, 1), (12, 9, 3), (12, 9, 4), (12, 9, 2)])
def test_arrays_in_arrays_out(upscaler, dtype, shape):
    x = make_image(12, 9, shape[2] if len(shape) == 3 else 1, dtype).reshape(shape)
    y = upscale(x, model=upscaler)
    assert y.dtype == dtype
    assert y.shape == (24, 18, *shape[2:])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(9, 12), (3, 9, 12), (2, 3, 9, 12), (1, 1, 9, 12), (4, 9, 12)])
def test_tensors_in_tensors_out(upscaler, dtype, shape):
    x = torch.rand(shape)
    x = (x * 255).to(dtype) if dtype == torch.uint8 else x.to(dtype)
    y = upscale(x, model=upscaler)
    assert y.dtype == dtype
    assert y.shape == (*shape[:-2], 18, 24)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16"])
def test_pil_in_pil_out(upscaler, mode):
    channels = {"L": 1, "I;16": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode]
    array = make_image(12, 9, channels, np.uint16 if mode == "I;16" else np.uint8)
    x = Pillow.fromarray(array[..., 0] if channels == 1 else array)
    assert x.mode == mode
    y = upscale(x, model=upscaler)
    assert isinstance(y, Pillow.Image)
    assert y.mode == mode
    assert y.size == (18, 24)


def test_bytes_and_paths(upscaler, tmp_path):
    Pillow.fromarray(make_image()).save(tmp_path / "ø photo.jpg")
    data = (tmp_path / "ø photo.jpg").read_bytes()
    encoded = upscale(data, model=upscaler)
    with Pillow.open(io.BytesIO(encoded)) as opened:
        assert opened.format == "JPEG"
        assert opened.size == (104, 80)
    result = upscale(tmp_path / "ø photo.jpg", scale=3, model=upscaler)
    result.save(tmp_path / "out.png")
    assert read_image(tmp_path / "out.png").pixels.shape == (120, 156, 3)
    assert np.array_equal(
        upscale(read_image(data), model=upscaler).pixels, upscaler(read_image(data)).pixels
    )


@pytest.mark.parametrize(("given", "comes"), [("PNG", "PNG"), ("GIF", "PNG"), ("TGA", "PNG")])
def test_bytes_come_in_a_format_that_can_be_written(upscaler, given, comes):
    buffer = io.BytesIO()
    Pillow.fromarray(make_image()).save(buffer, given)
    with Pillow.open(io.BytesIO(upscale(buffer.getvalue(), model=upscaler))) as opened:
        assert opened.format == comes


@pytest.mark.parametrize("x", [3, None, object(), [1, 2]])
def test_other_kinds_are_refused(upscaler, x):
    with pytest.raises(UnsupportedImageError, match="cannot upscale"):
        upscale(x, model=upscaler)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: torch.empty(3, 8, 8, device="meta"), "meta"),
        (lambda: torch.rand(3, 8, 8).to_sparse(), "sparse"),
        (lambda: torch.rand(3, 8, 8).to(torch.complex64).conj(), "complex64"),
        (lambda: torch.ones(3, 8, 8, dtype=torch.int64), "int64"),
        (lambda: torch.ones(3, 8, 8, dtype=torch.bool), "bool"),
        (lambda: torch.rand(8), "shape"),
    ],
)
def test_tensors_without_pixels_are_refused(upscaler, make, word):
    with pytest.raises(UnsupportedImageError, match=word):
        upscale(make(), model=upscaler)


def test_quantized_tensors_are_refused(upscaler):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch is about to remove them
        x = torch.quantize_per_tensor(torch.rand(3, 8, 8), 1 / 255, 0, torch.quint8)
    with pytest.raises(UnsupportedImageError, match="quint8"):
        upscale(x, model=upscaler)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_eight_bit_floats_come_back_as_they_are(upscaler, dtype):
    y = upscale(torch.rand(3, 9, 12).to(dtype), model=upscaler)
    assert (y.dtype, tuple(y.shape)) == (dtype, (3, 18, 24))


def test_negated_views_are_resolved(upscaler):
    x = torch.view_as_complex(-torch.rand(9, 12, 2)).conj().imag
    assert x.is_neg()
    torch.testing.assert_close(upscale(x, model=upscaler), upscale(x.clone(), model=upscaler))


@pytest.mark.parametrize(
    "values",
    [
        {"scale": "2"}, {"scale": True}, {"width": "100"}, {"width": 99.5}, {"fit": (1, 2, 3)},
        {"fit": 5}, {"strength": "all"}, {"blend": "half"}, {"back_project": 2.5},
    ],
)  # fmt: skip
def test_settings_of_other_types_are_refused(values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        UpscaleSettings(**values)
    UpscaleSettings(scale=np.float32(2))
    UpscaleSettings(width=np.int64(20))


@pytest.mark.parametrize("values", [{"tile": 2.5}, {"threads": "2"}, {"batch": 1.5}])
def test_engine_settings_of_other_types_are_refused(values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        EngineSettings(**values)


def test_a_result_that_does_not_fit_in_memory_is_an_error_of_ours(upscaler):
    with pytest.raises(OutOfMemoryError, match="1000000x"):
        upscale(make_image(), model=upscaler, settings=UpscaleSettings(width=10**6))


def test_a_network_without_architecture_is_refused():
    with pytest.raises(ConfigError, match="Conv2d"):
        Upscaler(torch.nn.Conv2d(3, 3, 3))


def test_wrong_shapes_are_refused(upscaler):
    with pytest.raises(UnsupportedImageError):
        upscale(np.zeros((4, 4, 7), np.uint8), model=upscaler)
    with pytest.raises(UnsupportedImageError, match="shape"):
        upscale(torch.zeros(2, 2, 3, 4, 4), model=upscaler)
    with pytest.raises(ConfigError, match="empty batch"):
        upscale(torch.zeros(0, 3, 4, 4), model=upscaler)


def test_a_model_file_stays_loaded_until_it_changes(tmp_path, monkeypatch):
    net = network()
    path = tmp_path / "tiny.safetensors"
    save_safetensors(path, net.state_dict(), model_metadata(net.architecture))
    first = api.load(path)
    assert api.load(str(path)) is first
    assert api.load(path, engine=EngineSettings("cpu")) is not first
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert upscale(make_image(), model=path, scale=1.5).shape == (60, 78, 3)
    first = api.load(path)
    os.utime(path, ns=(1, 1))
    assert api.load(path) is not first


def test_a_training_run_is_loaded_again_when_its_model_changes(tmp_path):
    net = network()
    path = tmp_path / "generator.safetensors"
    save_safetensors(path, net.state_dict(), model_metadata(net.architecture))
    first = api.load(tmp_path)
    assert api.load(tmp_path) is first
    os.utime(path, ns=(1, 1))
    assert api.load(tmp_path) is not first


def test_pil_and_array_agree(upscaler):
    pixels = make_image()
    by_array = upscale(pixels, model=upscaler)
    by_pil = np.asarray(upscale(Pillow.fromarray(pixels), model=upscaler))
    assert np.array_equal(by_array, by_pil)
    assert np.array_equal(by_array, upscaler(from_pil(Pillow.fromarray(pixels))).pixels)
    assert np.array_equal(by_array, upscaler(from_array(pixels)).pixels)
