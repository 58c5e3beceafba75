"""NIQE, a score of naturalness without a reference image: lower is better.

Source: Mittal, Soundararajan and Bovik 2013, "Making a 'completely blind' image quality analyzer",
in the form that super-resolution papers report (luma rounded, blocks of 96 pixels, every block
counted). The statistics of natural images are in data/, with their license.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from realesr_cli.metrics.reference import matlab_luma, round_to_8bit
from realesr_cli.ops.resize import imresize

BLOCK = 96
"""Side in pixels of the blocks that statistics are computed on; half of it at scale 1/2."""
WINDOW, SIGMA = 7, 7 / 6
SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Neighbors (down, right) whose products with a pixel are used."""

Array = NDArray[np.float64]


def niqe(image: Tensor, *, crop: int = 0) -> float:
    """Return the distance of an image's statistics from those of natural images, about 2 to 12.

    image: (C, H, W) or (1, C, H, W), RGB or gray in [0, 1]. `crop` pixels are excluded on each
    side, then the image is cropped to whole blocks of 96x96. Raises ValueError if fewer than two
    blocks are left, since a single one has no covariance.
    """
    luma = _crop_luma(image, crop)
    features = np.concatenate(
        [
            block_features(luma, BLOCK),
            block_features(imresize(luma / 255, 0.5) * 255, BLOCK // 2),
        ],
        axis=1,
    )
    return _distance(features)


def _crop_luma(image: Tensor, crop: int) -> Tensor:
    """Return (1, 1, H, W) float64, integers in 16..235, of whole blocks."""
    image = round_to_8bit(image.squeeze(0) if image.ndim == 4 else image)
    height, width = image.shape[-2:]
    rows, columns = (height - 2 * crop) // BLOCK, (width - 2 * crop) // BLOCK
    if crop < 0 or min(rows, columns) < 1 or rows * columns < 2:
        raise ValueError(
            f"NIQE needs at least two blocks of {BLOCK}x{BLOCK} pixels, got {width}x{height} with "
            f"a crop of {crop}"
        )
    image = image[:, crop : crop + rows * BLOCK, crop : crop + columns * BLOCK]
    return matlab_luma(image).round().unsqueeze(0)


def block_features(luma: Tensor, side: int) -> Array:
    """Return (blocks, 18): how normalized pixels and four products of neighbors are distributed.

    luma: (1, 1, H, W) in 0..255, H and W multiples of `side`. Features of a flat block are NaN.
    """
    normal = normalize_locally(luma)[0, 0].numpy()
    height, width = normal.shape
    tiled = normal.reshape(height // side, side, width // side, side).swapaxes(1, 2)
    blocks = tiled.reshape(-1, side, side)
    alpha, left, right = fit_asymmetric_gaussian(blocks)
    columns = [alpha, (left + right) / 2]
    for shift in SHIFTS:
        products = blocks * np.roll(blocks, shift, axis=(1, 2))
        alpha, left, right = fit_asymmetric_gaussian(products)
        columns += [alpha, (right - left) * _mean_factor(alpha), left, right]
    return np.stack(columns, axis=1)


def normalize_locally(luma: Tensor) -> Tensor:
    """Subtract the local mean of (1, 1, H, W), divide by the local deviation + 1 (equation 1)."""
    offsets = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    window = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    window = window / window.sum()

    def blur(x: Tensor) -> Tensor:
        half = WINDOW // 2
        x = F.pad(x, (half, half, half, half), mode="replicate")
        return F.conv2d(F.conv2d(x, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))

    mean = blur(luma)
    deviation = (blur(luma**2) - mean**2).abs().sqrt()
    return (luma - mean) / (deviation + 1)


def fit_asymmetric_gaussian(blocks: Array) -> tuple[Array, Array, Array]:
    """Return shape, left and right scale of an asymmetric generalized Gaussian for each block.

    Fitted by moments, the shape to the nearest of a grid of 9801 (Lasmar et al. 2009). NaN if a
    block has no values on one side.
    """
    flat = blocks.reshape(len(blocks), -1)
    squares = flat**2
    with np.errstate(invalid="ignore", divide="ignore"):
        left = np.sqrt((squares * (flat < 0)).sum(1) / (flat < 0).sum(1))
        right = np.sqrt((squares * (flat > 0)).sum(1) / (flat > 0).sum(1))
        ratio = left / right
        moment = np.abs(flat).mean(1) ** 2 / squares.mean(1)
        wanted = moment * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shapes, moments, scales = _shape_grid()
    nearest = np.array([int(np.abs(moments - value).argmin()) for value in wanted])
    alpha = np.where(np.isnan(wanted), np.nan, shapes[nearest])
    scale = scales[nearest]
    return alpha, left * scale, right * scale


@cache
def _shape_grid() -> tuple[Array, Array, Array]:
    """Return shapes 0.2 to 10, their ratios of moments, and their ratios of scale to deviation."""
    shapes = np.arange(200, 10001) / 1000
    one, two, three = (_log_gamma(k / shapes) for k in (1, 2, 3))
    return shapes, np.exp(2 * two - one - three), np.exp((one - three) / 2)


def _mean_factor(alpha: Array) -> Array:
    return np.exp(_log_gamma(2 / alpha) - _log_gamma(1 / alpha))


def _log_gamma(x: Array) -> Array:
    return np.asarray(torch.lgamma(torch.from_numpy(np.ascontiguousarray(x))).numpy())


def _distance(features: Array) -> float:
    """Return the distance of a Gaussian fit of the features from natural images (equation 10)."""
    mean, covariance = load_pristine()
    whole = features[~np.isnan(features).any(axis=1)]
    if len(whole) < 2:
        raise ValueError("NIQE needs at least two blocks with any detail")
    own_mean = np.nanmean(features, axis=0)
    own_covariance = np.cov(whole, rowvar=False)
    inverse = np.linalg.pinv((covariance + own_covariance) / 2)
    difference = mean - own_mean
    return float(np.sqrt(difference @ inverse @ difference))


@cache
def load_pristine() -> tuple[Array, Array]:
    """Return mean (36) and covariance (36, 36) of the features of 125 natural images."""
    with (files("realesr_cli.metrics") / "data" / "niqe_pristine.npz").open("rb") as file:
        stored = np.load(file, allow_pickle=False)
        return stored["mu_pris_param"].reshape(-1), stored["cov_pris_param"]
