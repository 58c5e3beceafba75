"""Image operations against OpenCV, Pillow and SciPy."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from realesr_cli.degrade.degradation import compress_libjpeg
from realesr_cli.degrade.kernels import Kernel, build_kernel
from realesr_cli.ops.color import luma
from realesr_cli.ops.filters import filter2d, gaussian_blur
from realesr_cli.ops.jpeg import JpegStyle, jpeg
from realesr_cli.ops.resize import resize


def smooth_image(height: int, width: int, seed: int) -> np.ndarray:
    """(H, W, 3) uint8 with edges and gradients, whose JPEG is not all noise."""
    noise = np.random.default_rng(seed).random((height, width, 3))
    soft = ndimage.gaussian_filter(noise, (3, 3, 0), mode="nearest")
    soft = (soft - soft.min()) / (soft.max() - soft.min())
    soft[height // 3 : height // 2, width // 4 :] = (
        1 - soft[height // 3 : height // 2, width // 4 :]
    )
    return np.asarray(np.round(soft * 255), dtype=np.uint8)


def tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.astype(np.float64) / 255).permute(2, 0, 1)[None]


def pillow_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(held) as decoded:
        return np.array(decoded)


@pytest.mark.parametrize("quality", [5, 10, 30, 50, 75, 90, 95, 100])
@pytest.mark.parametrize(("height", "width"), [(48, 64), (45, 53)])
def test_gray_jpeg_is_libjpegs(quality: int, height: int, width: int) -> None:
    gray = smooth_image(height, width, 1)[..., :1].repeat(3, axis=2)
    ours = jpeg(tensor(gray), float(quality), style=JpegStyle(integer_tables=True))
    ours = (ours[0, 0] * 255).round()
    theirs = pillow_jpeg(gray, quality)[..., 0].astype(np.float64)
    difference = np.abs(ours.numpy() - theirs)
    # A coefficient that lies on the border between two steps may fall either way.
    assert np.mean(difference > 1) < 0.05
    assert difference.mean() < 0.3


@pytest.mark.parametrize("quality", [20, 60, 90])
def test_color_jpeg_is_near_libjpegs(quality: int) -> None:
    color = smooth_image(64, 80, 2)
    ours = jpeg(tensor(color), float(quality), style=JpegStyle(integer_tables=True))
    theirs = tensor(pillow_jpeg(color, quality))
    # libjpeg interpolates chroma on decoding where the formula repeats it, and rounds colors to
    # 8 bit on the way: near, not equal. The wrong orientation of the table doubles this and more.
    difference = (luma(ours) - luma(theirs)).square().mean()
    loss = (luma(theirs) - luma(tensor(color))).square().mean()
    assert difference < (0.3 if quality < 80 else 0.6) * loss


def test_real_jpeg_is_pillows() -> None:
    color = smooth_image(33, 47, 3)
    ours = compress_libjpeg(tensor(color)[0].float(), 40)
    assert np.array_equal((ours.permute(1, 2, 0) * 255).round().numpy(), pillow_jpeg(color, 40))


@pytest.mark.parametrize(
    ("mode", "flag"),
    [("bilinear", cv2.INTER_LINEAR), ("bicubic", cv2.INTER_CUBIC), ("box", cv2.INTER_AREA)],
)
@pytest.mark.parametrize(("height", "width"), [(17, 23), (40, 33), (71, 90)])
def test_resize_is_opencvs(mode: str, flag: int, height: int, width: int) -> None:
    image = np.random.default_rng(4).random((40, 56, 3)).astype(np.float32)
    theirs = cv2.resize(image, (width, height), interpolation=flag)
    ours = resize(torch.from_numpy(image).permute(2, 0, 1)[None], (height, width), mode)
    np.testing.assert_allclose(ours[0].permute(1, 2, 0), theirs, atol=2e-5)


@pytest.mark.parametrize(
    ("mode", "flag"),
    [
        ("matlab", Image.Resampling.BICUBIC),
        ("triangle", Image.Resampling.BILINEAR),
        ("lanczos", Image.Resampling.LANCZOS),
    ],
)
@pytest.mark.parametrize(("height", "width"), [(10, 14), (17, 99)])
def test_antialiased_resize_is_pillows(mode: str, flag: int, height: int, width: int) -> None:
    image = np.random.default_rng(5).random((40, 56)).astype(np.float32)
    theirs = np.array(Image.fromarray(image).resize((width, height), flag))
    ours = resize(torch.from_numpy(image)[None, None], (height, width), mode)[0, 0].numpy()
    # Borders apart: MATLAB mirrors where Pillow cuts the kernel off.
    edge = (slice(3, -3), slice(6, -6))
    np.testing.assert_allclose(ours[edge], theirs[edge], atol=2e-5)


def test_filter_is_scipys() -> None:
    image = np.random.default_rng(6).random((37, 41))
    taps = build_kernel(Kernel("aniso", 15, 2.5, 1.0, 0.4))
    theirs = ndimage.correlate(image, taps, mode="mirror")
    ours = filter2d(torch.from_numpy(image)[None, None], torch.from_numpy(taps)[None])
    np.testing.assert_allclose(ours[0, 0], theirs, atol=1e-12)


def test_gaussian_blur_is_opencvs() -> None:
    image = np.random.default_rng(7).random((80, 90)).astype(np.float32)
    theirs = cv2.GaussianBlur(image, (51, 51), 0)
    ours = gaussian_blur(torch.from_numpy(image)[None, None], size=51, sigma=8.0)[0, 0]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
