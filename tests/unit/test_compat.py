"""The stand-in for the reference's RealESRGANer, on small untrained networks."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from realesr_cli.compat import RealESRGANer
from realesr_cli.errors import ConfigError, DeviceError, UnknownModelError, UnsupportedImageError
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.weights.model_files import load_model, save_pth


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


def _forward(weights: Path, bgr: np.ndarray) -> np.ndarray:
    """What the network itself says, without any of our machinery."""
    top = np.iinfo(bgr.dtype).max
    x = torch.from_numpy(bgr[..., ::-1].astype(np.float32) / top).permute(2, 0, 1)[None]
    y = load_model(weights)(x)[0].clamp(0, 1).permute(1, 2, 0).numpy()[..., ::-1]
    return np.rint(y * top)


@pytest.mark.parametrize(("kind", "tolerance"), [(np.uint8, 1), (np.uint16, 2)])
def test_bgr_goes_through_the_network_and_comes_back_bgr(weights: Path, kind: type, tolerance: int):
    image = _array(12, 16, 3, kind=kind)
    result, mode = RealESRGANer(4, str(weights), pre_pad=0, device="cpu").enhance(image)
    assert (mode, result.shape, result.dtype) == ("RGB", (48, 64, 3), image.dtype)
    difference = np.abs(result.astype(np.int64) - _forward(weights, image))
    assert difference.max() <= tolerance


def test_depth_comes_from_the_type_and_not_from_the_values(weights: Path):
    dark = _array(8, 8, 3, kind=np.uint16) % 200
    result, _ = RealESRGANer(4, str(weights), pre_pad=0, device="cpu").enhance(dark)
    assert result.dtype == np.uint16
    assert np.abs(result.astype(np.int64) - _forward(weights, dark)).max() <= 2


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


@pytest.mark.parametrize(("factor", "size"), [(2, (10, 14)), (1, (5, 7)), (3.5, (18, 25))])
def test_outscale_gives_its_exact_size(
    upsampler: RealESRGANer, factor: float, size: tuple[int, int]
):
    assert upsampler.enhance(_array(5, 7, 3), outscale=factor)[0].shape[:2] == size


def test_pre_pad_changes_only_the_right_and_lower_edge(weights: Path):
    image = _array(30, 30, 3)
    with_pad, _ = RealESRGANer(4, str(weights), pre_pad=6, device="cpu").enhance(image)
    without, _ = RealESRGANer(4, str(weights), pre_pad=0, device="cpu").enhance(image)
    differs = (with_pad != without).any(-1)
    assert differs.any()
    assert not differs[:96, :96].any()


def test_tiles_with_enough_pad_change_nothing(weights: Path):
    image = _array(40, 30, 3)
    whole, _ = RealESRGANer(4, str(weights), device="cpu").enhance(image)
    tiled, _ = RealESRGANer(4, str(weights), tile=16, device="cpu").enhance(image)
    assert np.abs(whole.astype(int) - tiled).max() <= 1


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


def test_two_models_are_mixed_by_their_shares(weights: Path, tmp_path: Path):
    other = _save(tmp_path / "other.pth", 2)
    mixed = RealESRGANer(4, [str(weights), str(other)], dni_weight=[0.25, 0.75], device="cpu")
    a, b = (load_model(p).state_dict() for p in (weights, other))
    for name, tensor in mixed.model.state_dict().items():
        torch.testing.assert_close(tensor, 0.25 * a[name] + 0.75 * b[name])
    first = RealESRGANer(4, [weights, other], dni_weight=[1, 0], device="cpu")
    assert all(torch.equal(t, a[n]) for n, t in first.model.state_dict().items())


def test_a_model_given_beside_its_file_is_only_compared(weights: Path):
    alike = CompactArchitecture(features=8, convs=1).build()
    upsampler = RealESRGANer(4, str(weights), model=alike, device="cpu")
    kept = load_model(weights).state_dict()
    assert all(torch.equal(t, kept[n]) for n, t in upsampler.model.state_dict().items())
    another = CompactArchitecture(features=8, convs=2).build()
    with pytest.raises(ConfigError, match="leave model away"):
        RealESRGANer(4, str(weights), model=another, device="cpu")


@pytest.mark.parametrize(
    ("model", "shares", "message"),
    [
        ("one", [0.5, 0.5], "a list of two"),
        (["one", "two"], None, "two shares"),
        (["one"], [1.0], "two models"),
        (["one", "two"], [0.5, 0.6], "add up to 1"),
    ],
)
def test_shares_that_do_not_fit_the_models_are_refused(model: Any, shares: Any, message: str):
    with pytest.raises(ConfigError, match=message):
        RealESRGANer(4, model, dni_weight=shares)


def test_a_scale_the_weights_do_not_have_is_refused(weights: Path):
    with pytest.raises(ConfigError, match=r"x4 network.*outscale"):
        RealESRGANer(2, str(weights), device="cpu")


def test_an_address_stands_for_the_registered_file(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("REALESR_OFFLINE", "1")
    with pytest.raises(UnknownModelError, match=r"nothing-known\.pth"):
        RealESRGANer(4, "https://example.org/a/nothing-known.pth?x=1")
    with pytest.raises(OSError, match="RealESRGAN_x4plus"):
        RealESRGANer(4, "https://example.org/v0.1.0/RealESRGAN_x4plus.pth")


def test_a_gpu_is_asked_for_by_its_number(weights: Path):
    with pytest.raises(DeviceError, match="cuda:7"):
        RealESRGANer(4, str(weights), gpu_id=7)


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 2), np.uint8), np.zeros(4, np.uint8)],
)
def test_arrays_of_other_kinds_are_refused(upsampler: RealESRGANer, array: np.ndarray):
    with pytest.raises(UnsupportedImageError, match="give"):
        upsampler.enhance(array)
