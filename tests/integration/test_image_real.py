"""Real images read as OpenCV reads them, and written and read again."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.ndimage import binary_dilation, gaussian_filter

from realesr_cli.image.pixels import bleed
from realesr_cli.image.probe import probe, whole_size
from realesr_cli.image.read import read_image
from realesr_cli.image.write import encode_image

pytestmark = pytest.mark.slow

KINDS = {
    "tree_alpha_16bit.png": (3, 16, True),
    "children-alpha.png": (3, 8, True),
    "00017_gray.png": (1, 8, False),
    "wolf_gray.jpg": (1, 8, False),
    "OST_009.png": (3, 8, False),
    "0014.jpg": (3, 8, False),
}


@pytest.mark.parametrize("name", KINDS)
def test_real_images_are_read_as_they_are(shared: Path, name: str):
    path = shared / "data" / "bench" / "inputs" / name
    image = read_image(path)
    assert (image.channels, image.bits, image.has_alpha) == KINDS[name]
    expected = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    found = np.asarray(image)
    if found.ndim == 3:
        found = found[..., [2, 1, 0, 3][: found.shape[2]]]
    tolerance = 2 if name.endswith(".jpg") else 0  # two decoders of JPEG
    assert np.abs(found.astype(int) - expected).max() <= tolerance
    header = probe(path)
    assert (header.height, header.width) == (image.height, image.width) == whole_size(path)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("format", ["png", "tiff"])
def test_real_images_survive(shared: Path, name: str, format: str):
    image = read_image(shared / "data" / "bench" / "inputs" / name)
    found = read_image(encode_image(image, format))
    assert np.array_equal(np.asarray(found), np.asarray(image))
    assert found.icc == image.icc


@pytest.mark.parametrize("name", ["tree_alpha_16bit.png", "children-alpha.png"])
def test_bleeding_continues_the_color_of_real_cut_outs(shared: Path, name: str):
    image = read_image(shared / "data" / "bench" / "inputs" / name)
    assert image.alpha is not None
    hidden = image.alpha == 0
    found = bleed(image.pixels, image.alpha)
    assert np.array_equal(found[~hidden], image.pixels[~hidden])

    cover = image.alpha / image.alpha.max()
    around = np.stack(
        [
            gaussian_filter(image.pixels[..., c] * cover, 4)
            / np.maximum(gaussian_filter(cover, 4), 1e-9)
            for c in range(3)
        ],
        axis=-1,
    )
    beside = hidden & binary_dilation(~hidden, iterations=3)

    def distance(pixels: np.ndarray) -> float:
        """Mean difference to the visible color around, beside the edge."""
        return float(np.abs(pixels[beside] - around[beside]).mean())

    assert distance(found) < 0.5 * distance(image.pixels)
