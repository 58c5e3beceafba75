"""The stand-in for the reference's RealESRGANer, on small untrained networks."""

from __future__ import annotations

import copy
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from realesr_cli.compat import RealESRGANer, RRDBNet, SRVGGNetCompact
from realesr_cli.engine.settings import EngineSettings
from realesr_cli.errors import (
    CheckpointFormatError,
    ConfigError,
    DeviceError,
    OutOfMemoryError,
    UnknownModelError,
    UnsupportedImageError,
)
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.weights.load import load_model
from realesr_cli.weights.model_files import save_pth


def _save(path: Path, seed: int, **fields: Any) -> Path:
    torch.manual_seed(seed)
    net = CompactArchitecture(features=8, convs=1, **fields).build()
    save_pth(path, {"params": net.state_dict()})
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _save(tmp_path_factory.mktemp("compat") / "tiny.pth", 1)


@pytest.fixture(scope="module")
def upsampler(weights: Path) -> RealESRGANer:
    return RealESRGANer(4, str(weights), device="cpu")


def _array(*shape: int, kind: type = np.uint8, seed: int = 0) -> np.ndarray:
    top = np.iinfo(kind).max
    return np.random.default_rng(seed).integers(0, top, shape, dtype=kind, endpoint=True)


def _forward(net: torch.nn.Module, bgr: np.ndarray) -> np.ndarray:
    """What the network itself gives, without any of our machinery."""
    top = np.iinfo(bgr.dtype).max
    x = torch.from_numpy(bgr[..., ::-1].astype(np.float32) / top).permute(2, 0, 1)[None]
    with torch.no_grad():
        y = net(x)[0].clamp(0, 1).permute(1, 2, 0).numpy()[..., ::-1]
    return np.rint(y * top)


def _difference(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(np.int64) - b.astype(np.int64)).max())


# --- enhance ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "tolerance"), [(np.uint8, 1), (np.uint16, 2)])
def test_bgr_goes_through_the_network_and_comes_back_bgr(weights: Path, kind: type, tolerance: int):
    image = _array(12, 16, 3, kind=kind)
    result, mode = RealESRGANer(4, str(weights), pre_pad=0, device="cpu").enhance(image)
    assert (mode, result.shape, result.dtype) == ("RGB", (48, 64, 3), image.dtype)
    assert _difference(result, _forward(load_model(weights), image)) <= tolerance


def test_depth_comes_from_the_type_and_not_from_the_values(weights: Path):
    dark = _array(8, 8, 3, kind=np.uint16) % 200
    result, _ = RealESRGANer(4, str(weights), pre_pad=0, device="cpu").enhance(dark)
    assert result.dtype == np.uint16
    assert _difference(result, _forward(load_model(weights), dark)) <= 2


@pytest.mark.parametrize(
    ("shape", "mode", "expected"),
    [
        ((5, 7), "L", (20, 28)),
        ((5, 7, 1), "L", (20, 28)),
        ((5, 7, 3), "RGB", (20, 28, 3)),
        ((5, 7, 4), "RGBA", (20, 28, 4)),
        ((1, 1, 3), "RGB", (4, 4, 3)),
    ],
)
def test_channels_stay_as_they_are(
    upsampler: RealESRGANer, shape: tuple[int, ...], mode: str, expected: tuple[int, ...]
):
    result, found = upsampler.enhance(_array(*shape))
    assert (found, result.shape) == (mode, expected)
    assert result.flags.c_contiguous


def test_gray_equals_gray_sent_as_color(upsampler: RealESRGANer):
    gray = _array(9, 9)
    single, _ = upsampler.enhance(gray)
    color, _ = upsampler.enhance(np.dstack([gray] * 3))
    luma = color[..., ::-1] @ np.array([0.299, 0.587, 0.114])
    assert np.abs(single - luma).max() <= 1


def test_opaque_alpha_stays_opaque_and_the_way_of_alpha_matters(upsampler: RealESRGANer):
    image = _array(9, 9, 4)
    image[..., 3] = 255
    assert (upsampler.enhance(image)[0][..., 3] == 255).all()
    image[..., 3] = _array(9, 9, seed=5)
    by_model, _ = upsampler.enhance(image)
    resampled, _ = upsampler.enhance(image, alpha_upsampler="bicubic")
    assert (by_model[..., 3] != resampled[..., 3]).any()
    assert (by_model[..., :3] == resampled[..., :3]).all()


@pytest.mark.parametrize("pre_pad", [0, 6])
@pytest.mark.parametrize(
    ("factor", "size"), [(2, (10, 14)), (1, (5, 7)), (3.5, (17, 24)), (1.3, (6, 9)), (0.1, (1, 1))]
)
def test_outscale_truncates(weights: Path, factor: float, size: tuple[int, int], pre_pad: int):
    made = RealESRGANer(4, str(weights), pre_pad=pre_pad, device="cpu")
    for channels in (1, 3, 4):
        result, _ = made.enhance(_array(5, 7, channels), outscale=factor)
        assert result.shape[:2] == size
        assert result.dtype == np.uint8


def test_another_size_is_reached_in_float_before_rounding(weights: Path):
    """A half of the enlarged image in float is not the half of its rounded values."""
    image = _array(16, 16, 3, kind=np.uint16)
    made = RealESRGANer(4, str(weights), pre_pad=0, device="cpu")
    half, _ = made.enhance(image, outscale=2)
    whole, _ = made.enhance(image)
    average = whole.reshape(32, 2, 32, 2, 3).mean((1, 3))
    assert np.abs(half[4:-4, 4:-4] - average[4:-4, 4:-4]).mean() < 3000


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int32, np.int64])
def test_other_arrays_are_0_to_255_unless_a_value_exceeds_256(upsampler: RealESRGANer, kind: type):
    image = _array(9, 8, 3)
    result, _ = upsampler.enhance(image.astype(kind))
    assert result.dtype == np.uint8
    assert _difference(result, upsampler.enhance(image)[0]) <= 1
    deep = _array(9, 8, 3, kind=np.uint16)
    result, _ = upsampler.enhance(deep.astype(kind))
    assert result.dtype == np.uint16
    assert _difference(result, upsampler.enhance(deep)[0]) <= 1


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 4, 2), np.uint8), np.zeros(4, np.uint8), None, "a.png", np.zeros((0, 4, 3))],
)
def test_arrays_of_other_kinds_are_refused(upsampler: RealESRGANer, array: Any):
    with pytest.raises(UnsupportedImageError, match="expected"):
        upsampler.enhance(array)


def test_pre_pad_changes_only_the_right_and_lower_edge(weights: Path):
    image = _array(30, 30, 3)
    with_pad, _ = RealESRGANer(4, str(weights), pre_pad=6, device="cpu").enhance(image)
    without, _ = RealESRGANer(4, str(weights), pre_pad=0, device="cpu").enhance(image)
    differs = (with_pad != without).any(-1)
    assert differs.any()
    assert not differs[:96, :96].any()


@pytest.mark.parametrize("tile", [16, -1, 0])
def test_tiles_with_enough_pad_change_nothing(weights: Path, tile: int):
    image = _array(40, 30, 3)
    whole, _ = RealESRGANer(4, str(weights), device="cpu").enhance(image)
    tiled, _ = RealESRGANer(4, str(weights), tile=tile, device="cpu").enhance(image)
    assert _difference(whole, tiled) <= 1


def test_one_object_serves_many_threads(upsampler: RealESRGANer):
    images = [_array(8 + i, 9, 3, seed=i) for i in range(8)]
    expected = [upsampler.enhance(p)[0] for p in images]
    found: dict[int, np.ndarray] = {}

    def work(i: int) -> None:
        found[i] = upsampler.enhance(images[i])[0]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((found[i] == expected[i]).all() for i in range(8))


# --- models -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shares", [[0.25, 0.75], [1.5, -0.5], [0.5, 0.6]])
def test_two_models_are_summed_with_any_weights(weights: Path, tmp_path: Path, shares: list[float]):
    other = _save(tmp_path / "other.pth", 2)
    mixed = RealESRGANer(4, [str(weights), str(other)], dni_weight=shares, device="cpu")
    a, b = (load_model(p).state_dict() for p in (weights, other))
    for name, tensor in mixed.model.state_dict().items():
        torch.testing.assert_close(tensor, shares[0] * a[name] + shares[1] * b[name])


def test_one_of_two_models_can_be_taken_alone(weights: Path, tmp_path: Path):
    other = _save(tmp_path / "other.pth", 2)
    first = RealESRGANer(4, [weights, other], dni_weight=[1, 0], device="cpu")
    kept = load_model(weights).state_dict()
    assert all(torch.equal(t, kept[n]) for n, t in first.model.state_dict().items())


def test_a_model_given_beside_its_file_gets_the_weights(weights: Path):
    given = SRVGGNetCompact(num_in_ch=3, num_out_ch=3, num_feat=8, num_conv=1, upscale=4)
    upsampler = RealESRGANer(4, str(weights), model=given, device="cpu")
    kept = load_model(weights).state_dict()
    assert upsampler.model is given
    assert all(torch.equal(t, kept[n]) for n, t in given.state_dict().items())
    another = SRVGGNetCompact(num_feat=8, num_conv=2)
    with pytest.raises(ConfigError, match=r"2 convolutions.*1 convolutions"):
        RealESRGANer(4, str(weights), model=another, device="cpu")


def test_a_model_given_settles_what_tensors_cannot(tmp_path: Path):
    """ReLU and LeakyReLU have no tensors."""
    given = SRVGGNetCompact(num_feat=8, num_conv=1, act_type="leakyrelu")
    save_pth(tmp_path / "leaky.pth", {"params": given.state_dict()})
    upsampler = RealESRGANer(4, tmp_path / "leaky.pth", model=given, pre_pad=0, device="cpu")
    image = _array(9, 9, 3)
    assert _difference(upsampler.enhance(image)[0], _forward(given, image)) <= 1


def test_the_reference_keywords_describe_its_networks():
    """Parameter counts of the released sizes."""
    with torch.device("meta"):
        counts = {
            RRDBNet(3, 3, num_feat=64, num_block=23, num_grow_ch=32, scale=4): 16_697_987,
            RRDBNet(num_in_ch=3, num_out_ch=3, scale=2): 16_703_171,
            RRDBNet(3, 3, 1): 16_723_907,
            RRDBNet(3, 3, num_block=6): 4_467_779,
            SRVGGNetCompact(3, 3, 64, 32, 4, "prelu"): 1_213_296,
            SRVGGNetCompact(num_conv=16): 621_424,
        }
    for net, count in counts.items():
        assert sum(p.numel() for p in net.parameters()) == count
    with pytest.raises(ConfigError, match="scale = 8"):
        RRDBNet(3, 3, 8)


@pytest.mark.parametrize(
    ("model", "shares", "message"),
    [
        ("one", [0.5, 0.5], "list of two"),
        (["one", "two"], None, "dni_weight"),
        (["one"], [1.0], "dni_weight"),
    ],
)
def test_weights_that_do_not_fit_the_models_are_refused(model: Any, shares: Any, message: str):
    with pytest.raises(ConfigError, match=message):
        RealESRGANer(4, model, dni_weight=shares)


def test_a_scale_the_weights_do_not_have_is_refused(weights: Path):
    with pytest.raises(ConfigError, match=r"x4 network.*outscale"):
        RealESRGANer(2, str(weights), device="cpu")


# --- devices ------------------------------------------------------------------------------------


def test_the_device_is_one_of_torch(upsampler: RealESRGANer):
    assert upsampler.device == torch.device("cpu")
    assert upsampler.device.type == "cpu"


@pytest.mark.parametrize("gpu", [0, 1, 7])
def test_a_gpu_that_is_not_there_means_the_cpu(
    weights: Path, gpu: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert RealESRGANer(4, str(weights), gpu_id=gpu).device.type == "cpu"


def test_a_device_that_is_named_must_be_there(weights: Path):
    for device in ("cuda:77", torch.device("cuda", 77)):
        with pytest.raises(DeviceError, match="cuda:77"):
            RealESRGANer(4, str(weights), device=device)


def test_half_is_the_fast_precision_of_the_device(weights: Path):
    for half, precision in ((False, "fp32"), (True, "auto")):
        made = RealESRGANer(4, str(weights), half=half, device="cpu")
        engine = EngineSettings("cpu", precision)
        expected = type(made._upscaler(0))(made.model, engine).policy.precision
        assert made._upscaler(0).policy.precision == expected


# --- changes after construction -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["tile", "tile_size"])
def test_tiles_may_be_changed_later(weights: Path, name: str):
    upsampler = RealESRGANer(4, str(weights), tile_pad=0, pre_pad=0, device="cpu")
    image = _array(40, 40, 3)
    whole, _ = upsampler.enhance(image)
    setattr(upsampler, name, 16)
    assert (upsampler.tile, upsampler.tile_size) == (16, 16)
    tiled, _ = upsampler.enhance(image)
    assert (tiled != whole).any(), "without pad the seams show"
    upsampler.tile_pad = 10
    assert _difference(upsampler.enhance(image)[0], whole) <= 1


def test_precision_may_be_changed_later(weights: Path):
    upsampler = RealESRGANer(4, str(weights), device="cpu")
    upsampler.half = True
    automatic = type(upsampler._upscaler(0))(upsampler.model, EngineSettings("cpu"))
    assert upsampler._upscaler(0).policy.precision == automatic.policy.precision


def test_another_model_takes_effect(weights: Path, tmp_path: Path):
    upsampler = RealESRGANer(4, str(weights), pre_pad=0, device="cpu")
    image = _array(9, 9, 3)
    before, _ = upsampler.enhance(image)
    other = load_model(_save(tmp_path / "other.pth", 2))
    upsampler.model = other
    assert _difference(upsampler.enhance(image)[0], _forward(other, image)) <= 1
    assert (upsampler.enhance(image)[0] != before).any()


def test_weights_changed_in_place_take_effect(weights: Path, tmp_path: Path):
    upsampler = RealESRGANer(4, str(weights), pre_pad=0, device="cpu")
    image = _array(9, 9, 3)
    upsampler.enhance(image)
    other = load_model(_save(tmp_path / "other.pth", 2))
    upsampler.model.load_state_dict(other.state_dict())
    assert _difference(upsampler.enhance(image)[0], _forward(other, image)) <= 1


def test_a_foreign_module_or_function_can_be_the_model(weights: Path):
    class Nearest(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.repeat_interleave(4, 2).repeat_interleave(4, 3)

    upsampler = RealESRGANer(4, str(weights), tile=16, device="cpu")
    image = _array(20, 21, 3)
    for model in (Nearest(), Nearest().forward):
        upsampler.model = model
        result, _ = upsampler.enhance(image)
        assert _difference(result, image.repeat(4, 0).repeat(4, 1)) <= 1
        assert upsampler._upscaler(0) is upsampler._upscaler(0), "opened once"
    upsampler.model = "a name"
    with pytest.raises(ConfigError, match="expected a network"):
        upsampler.enhance(image)


def test_copies_and_pickles_work(upsampler: RealESRGANer):
    image = _array(9, 9, 3)
    expected, _ = upsampler.enhance(image)
    for made in (copy.deepcopy(upsampler), copy.copy(upsampler)):
        assert np.array_equal(made.enhance(image)[0], expected)
    restored = pickle.loads(pickle.dumps(upsampler))
    assert np.array_equal(restored.enhance(image)[0], expected)


# --- steps and subclasses -----------------------------------------------------------------------


@pytest.mark.parametrize(("scale", "size"), [(4, (9, 11)), (2, (9, 11)), (1, (9, 11)), (4, (3, 2))])
@pytest.mark.parametrize("tile", [0, 8])
def test_the_steps_give_what_enhance_gives(
    tmp_path: Path, scale: int, size: tuple[int, int], tile: int
):
    torch.manual_seed(0)
    net = RRDBNet(3, 3, scale, num_feat=8, num_block=1, num_grow_ch=4)
    save_pth(tmp_path / "net.pth", {"params_ema": net.state_dict()})
    upsampler = RealESRGANer(scale, tmp_path / "net.pth", tile=tile, tile_pad=40, device="cpu")
    image = _array(*size, 3)
    upsampler.pre_process(image[..., ::-1].astype(np.float32) / 255)
    assert upsampler.img.shape[0] == 1
    assert all(side % {1: 4, 2: 2}.get(scale, 1) == 0 for side in upsampler.img.shape[2:])
    upsampler.tile_process() if tile else upsampler.process()
    output = upsampler.post_process()
    assert output.shape == (1, 3, size[0] * scale, size[1] * scale)
    assert output.device == upsampler.device
    found = np.rint(output[0].permute(1, 2, 0).numpy()[..., ::-1] * 255)
    # Where the network gives multiples of 4, the reference mirrors and cuts as we do.
    assert _difference(found, upsampler.enhance(image)[0]) <= 1


class Bare(RealESRGANer):
    """A subclass that sets what it needs and calls no other constructor."""

    def __init__(self, model: Any, scale: int) -> None:
        self.model, self.scale = model, scale


def test_a_subclass_need_not_call_the_constructor(weights: Path):
    net = load_model(weights)
    image = _array(12, 9, 3)
    result, mode = Bare(net, 4).enhance(image, outscale=4)
    assert mode == "RGB"
    expected, _ = RealESRGANer(4, str(weights), device="cpu").enhance(image)
    assert np.array_equal(result, expected)


@pytest.mark.parametrize("tile", [0, 8])
def test_steps_that_a_subclass_overrides_are_used(weights: Path, tile: int):
    calls: list[str] = []

    class Counted(RealESRGANer):
        def process(self) -> None:
            calls.append("process")
            super().process()

        def tile_process(self) -> None:
            calls.append("tile_process")
            super().tile_process()

    plain = RealESRGANer(4, str(weights), tile=tile, device="cpu")
    counted = Counted(4, str(weights), tile=tile, device="cpu")
    for shape in ((9, 10), (9, 10, 3), (9, 10, 4)):
        calls.clear()
        image = _array(*shape)
        for outscale in (None, 2.5):
            found, mode = counted.enhance(image, outscale=outscale)
            expected, same = plain.enhance(image, outscale=outscale)
            assert mode == same
            assert _difference(found, expected) <= 1
        passes = 2 if mode == "RGBA" else 1
        assert calls == ["tile_process" if tile else "process"] * passes * 2


def test_a_step_set_on_the_object_is_used(weights: Path):
    upsampler = RealESRGANer(4, str(weights), pre_pad=0, device="cpu")

    def black() -> None:
        upsampler.output = torch.zeros(1, 3, 36, 40)

    upsampler.process = black  # type: ignore[method-assign]
    assert upsampler.enhance(_array(9, 10, 3))[0].max() == 0


# --- errors -------------------------------------------------------------------------------------


def test_every_error_is_a_runtime_error_too(
    weights: Path, upsampler: RealESRGANer, monkeypatch: pytest.MonkeyPatch
):
    """Scripts of the reference catch RuntimeError and nothing else."""
    with pytest.raises(RuntimeError) as caught:
        upsampler.enhance(np.zeros((4, 4, 2), np.uint8))
    assert isinstance(caught.value, UnsupportedImageError)
    assert caught.value.exit_code == 1
    with pytest.raises(RuntimeError) as caught:
        RealESRGANer(4, str(weights.with_name("missing.pth")))
    assert isinstance(caught.value, UnknownModelError)
    broken = copy.deepcopy(upsampler)
    broken.model.body[0].weight.data.fill_(float("nan"))
    with pytest.raises(RuntimeError) as caught:
        broken.enhance(_array(9, 9, 3))
    assert isinstance(caught.value, CheckpointFormatError)
    assert caught.value.advice == "corrupt-weights"

    class Full(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise MemoryError

    full = Bare(Full(), 4)
    with pytest.raises(RuntimeError) as caught:
        full.enhance(_array(9, 9, 3))
    assert isinstance(caught.value, OutOfMemoryError)
    assert isinstance(caught.value, MemoryError)
