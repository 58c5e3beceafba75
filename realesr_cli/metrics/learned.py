"""LPIPS and DISTS, learned distances from a reference image: 0 for equal ones, lower is better.

Sources: Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual
Metric" (weights version 0.1), and Ding et al. 2020, "Image Quality Assessment: Unifying Structure
and Texture Similarity". Both are computed by their authors' packages, which the extras of those
names install; the ImageNet networks are torchvision's, downloaded once to the folder of torch.hub.
"""

from __future__ import annotations

import hashlib
import importlib
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor

from realesr_cli.errors import (
    ChecksumMismatchError,
    ConfigError,
    MissingDependencyError,
    ModelUnavailableError,
)
from realesr_cli.metrics.reference import PEAK, crop_pair, round_to_8bit

Backbone = Literal["alex", "vgg", "squeeze"]

_ADDRESS = "https://download.pytorch.org/models/"
_FILES: dict[str, str] = {
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}
"""torchvision's files; the last part of a name is the beginning of the file's SHA-256."""

SMALLEST = 64
"""Shortest side in pixels: LPIPS was calibrated on such images, and DISTS pools four times."""


class Lpips:
    """LPIPS with its networks loaded once, on the CPU."""

    def __init__(self, net: Backbone = "alex", *, offline: bool = False) -> None:
        """Load LPIPS on a backbone; papers report `alex`.

        Raises MissingDependencyError without the package `lpips`, ModelUnavailableError if the
        backbone's weights cannot be downloaded (or `offline` forbids it), ChecksumMismatchError if
        the file is not torchvision's, ConfigError for an unknown backbone.
        """
        if net not in get_args(Backbone):
            raise ConfigError(f"lpips_net = {net!r}: expected one of {', '.join(_FILES)}")
        package = _import("lpips", "lpips")
        _ensure("LPIPS", _FILES[net], offline)
        with warnings.catch_warnings():
            # It calls torchvision in a deprecated way.
            warnings.simplefilter("ignore")
            self._distance = package.LPIPS(net=net, version="0.1", verbose=False).eval()

    @torch.inference_mode()
    def __call__(self, a: Tensor, b: Tensor, crop: int = 0) -> float:
        """Return the distance of two images of equal shape, about 0 to 1.

        a, b: (C, H, W) or (1, C, H, W), RGB or gray in [0, 1], rounded to 8 bits first. `crop`
        pixels are excluded on each side. Raises ValueError if the shapes differ or fewer than 64x64
        pixels are left.
        """
        pair = [(x * 2 - 1).float() for x in _prepare("LPIPS", a, b, crop)]
        return float(self._distance(*pair))


class Dists:
    """DISTS with its network loaded once, on the CPU; tolerant of resampled texture."""

    def __init__(self, *, offline: bool = False) -> None:
        """Load DISTS; raises what `Lpips` raises, for the package `DISTS_pytorch`."""
        package = _import("DISTS_pytorch", "dists")
        _ensure("DISTS", _FILES["vgg"], offline)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._distance = package.DISTS(load_weights=False).eval()
        # The package itself looks for this file in sys.prefix, where not every installer puts it.
        path = Path(str(package.__file__)).with_name("weights.pt")
        weights = torch.load(path, map_location="cpu", weights_only=True)
        self._distance.alpha.data, self._distance.beta.data = weights["alpha"], weights["beta"]

    @torch.inference_mode()
    def __call__(self, a: Tensor, b: Tensor, crop: int = 0) -> float:
        """Return the distance of two images, 0 to 1; arguments as for `Lpips`."""
        return float(self._distance(*(x.float() for x in _prepare("DISTS", a, b, crop))))


def _prepare(name: str, a: Tensor, b: Tensor, crop: int) -> list[Tensor]:
    """Return (1, 3, H, W) float64 in [0, 1] of 8-bit values, without the border."""
    pair = crop_pair(name, a, b, crop, SMALLEST)
    rounded = [round_to_8bit(x.squeeze(0) if x.ndim == 4 else x) / PEAK for x in pair]
    return [x.expand(3, -1, -1).unsqueeze(0) for x in rounded]


def _import(module: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        # torchvision raises RuntimeError if it was built for another torch.
        missing = isinstance(error, ModuleNotFoundError)
        why = "is not installed" if missing else f"cannot be loaded ({error})"
        hint = "" if missing else ", with the torchvision that matches the installed torch"
        raise MissingDependencyError(
            f"the package {module} {why}: pip install 'realesr-cli[{extra}]'{hint}"
        ) from error


def _ensure(metric: str, name: str, offline: bool) -> None:
    """Download a network to the folder of torch.hub if it is not there, and check its hash."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / name
    prefix = name.removesuffix(".pth").rpartition("-")[2]
    if not path.is_file():
        hint = f"put {_ADDRESS}{name} into {folder}"
        if offline:
            raise ModelUnavailableError(
                f"{metric} needs {name}, which is not there, and the network is not used: {hint}"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(
                _ADDRESS + name, str(path), hash_prefix=prefix, progress=False
            )
        except (OSError, RuntimeError) as error:
            raise ModelUnavailableError(
                f"{metric} needs {name}, which cannot be downloaded ({error}): {hint}"
            ) from error
    with path.open("rb") as file:
        found = hashlib.file_digest(cast(Any, file), "sha256").hexdigest()
    if not found.startswith(prefix):
        raise ChecksumMismatchError(
            f"{path}: SHA-256 mismatch: expected {prefix}..., got {found[:8]}...; remove the file, "
            "and it will be downloaded again"
        )
