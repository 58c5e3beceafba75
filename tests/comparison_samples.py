"""Comparisons for tests, of images whose pixels encode where they are from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as pillow

from realesr_cli.evaluate.comparison import (
    Comparison,
    ModelSummary,
    Photo,
    PhotoVersion,
    WeightsFile,
)
from realesr_cli.image.types import Image
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.weights.model_files import save_pth

SCALE = 4


def gradient(height: int, width: int, blue: int) -> NDArray[np.uint8]:
    """Encode the column in red and the row in green, each up to 256, and the version in blue."""
    rows, columns = np.indices((height, width), dtype=np.uint8)
    return np.dstack([columns, rows, np.full_like(rows, blue)])


def photo(
    name: str = "photo.png", height: int = 48, width: int = 64, notes: tuple[str, ...] = ()
) -> Photo:
    """Return a photo with its input, bicubic and one model, of blue 128, 0 and 255."""
    small = gradient(height, width, 128)
    large = height * SCALE, width * SCALE
    scores = {"niqe": 5.25}, {"niqe": 4.5}
    versions = (
        PhotoVersion("input", "input", Image(small)),
        PhotoVersion("bicubic", "bicubic", Image(gradient(*large, 0)), None, scores[0]),
        PhotoVersion("net", "model", Image(gradient(*large, 255)), 1.25, scores[1]),
    )
    return Photo(name, *large, notes, versions)


def summary(name: str = "net") -> ModelSummary:
    """Return the summary of a model."""
    return ModelSummary(
        name=name,
        network="a network",
        scale=SCALE,
        license="MIT",
        files=(WeightsFile(f"{name}.pth", "0123456789abcdef" * 4),),
        device="cpu",
        precision="fp32",
        backend="torch",
        tile=160,
        overlap=10,
    )


def comparison(*photos: Photo) -> Comparison:
    """Return a comparison of these photos, or of one."""
    return Comparison(SCALE, (summary(),), photos or (photo(),))


def save_net(path: Path, scale: int = SCALE, seed: int = 7) -> Path:
    """Save the weights of a tiny network."""
    torch.manual_seed(seed)
    net = CompactArchitecture(scale=scale, features=8, convs=1).build()
    save_pth(path, {"params": net.state_dict()})
    return path


def save_photo(path: Path, width: int = 30, height: int = 20, mode: str = "RGB") -> Path:
    """Save an image with some structure."""
    pillow.radial_gradient("L").resize((width, height)).convert(mode).save(path)
    return path
