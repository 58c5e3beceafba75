"""LPIPS and DISTS through stand-ins of their packages: their inputs, and errors without them."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from realesr_cli.errors import (
    ChecksumMismatchError,
    ConfigError,
    MissingDependencyError,
    ModelUnavailableError,
)
from realesr_cli.metrics import learned
from realesr_cli.metrics.learned import Dists, Lpips

DATA = b"weights"
PREFIX = hashlib.sha256(DATA).hexdigest()[:8]


class StandIn(nn.Module):
    """With the interface of `lpips.LPIPS`; the distance is the mean absolute difference."""

    made: dict[str, Any] = {}  # noqa: RUF012
    seen: list[Tensor] = []  # noqa: RUF012

    def __init__(self, net: str, version: str, verbose: bool) -> None:
        super().__init__()
        type(self).made = {"net": net, "version": version, "verbose": verbose}

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        type(self).seen = [a, b]
        return (a - b).abs().mean().view(1, 1, 1, 1)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of torch.hub that holds the network's file, and the stand-in as the package."""
    package = ModuleType("lpips")
    package.LPIPS = StandIn  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lpips", package)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setitem(learned._FILES, "alex", f"alexnet-{PREFIX}.pth")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / f"alexnet-{PREFIX}.pth").write_bytes(DATA)
    return tmp_path


@pytest.mark.usefixtures("hub")
def test_images_are_given_at_eight_bits_in_minus_one_to_one() -> None:
    a, b = torch.full((3, 64, 80), 0.4 / 255), torch.ones(3, 64, 80)
    assert Lpips()(a, b) == pytest.approx(2.0)
    low, high = StandIn.seen
    assert low.shape == (1, 3, 64, 80)
    assert low.dtype == torch.float32
    assert (float(low.max()), float(high.min())) == (-1.0, 1.0)
    assert StandIn.made == {"net": "alex", "version": "0.1", "verbose": False}


@pytest.mark.usefixtures("hub")
def test_the_crop_leaves_out_the_border_and_gray_is_three_channels() -> None:
    a, b = torch.zeros(1, 72, 72), torch.zeros(1, 72, 72)
    b[:, 0] = 1
    distance = Lpips()
    assert distance(a, b) > 0
    assert distance(a, b, crop=4) == 0
    assert StandIn.seen[0].shape == (1, 3, 64, 64)


@pytest.mark.usefixtures("hub")
def test_what_cannot_be_compared_is_refused() -> None:
    distance = Lpips()
    with pytest.raises(ValueError, match="different shapes"):
        distance(torch.zeros(3, 64, 64), torch.zeros(3, 64, 65))
    with pytest.raises(ValueError, match="64x64"):
        distance(torch.zeros(3, 64, 64), torch.zeros(3, 64, 64), crop=1)
    with pytest.raises(ConfigError, match="alex, vgg, squeeze"):
        Lpips("resnet")  # type: ignore[arg-type]


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'realesr-cli\[lpips\]'"):
        Lpips()


def test_a_package_that_does_not_fit_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lpips.py").write_text('raise RuntimeError("operator torchvision::nms")\n')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "lpips", raising=False)
    with pytest.raises(MissingDependencyError, match="torchvision"):
        Lpips()


def test_offline_the_file_and_its_place_are_named(hub: Path) -> None:
    name = f"alexnet-{PREFIX}.pth"
    (hub / "checkpoints" / name).unlink()
    with pytest.raises(ModelUnavailableError, match=f"put https://.*{name} into .*checkpoints"):
        Lpips(offline=True)


def test_a_failed_download_is_reported(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no route")

    (hub / "checkpoints" / f"alexnet-{PREFIX}.pth").unlink()
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(ModelUnavailableError, match="no route"):
        Lpips()


def test_a_download_is_checked_and_kept(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def fetch(url: str, path: str, *, hash_prefix: str, progress: bool) -> None:
        asked.update(url=url, prefix=hash_prefix, progress=progress)
        Path(path).write_bytes(DATA)

    path = hub / "checkpoints" / f"alexnet-{PREFIX}.pth"
    path.unlink()
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    Lpips()
    assert asked["url"].endswith(f"/alexnet-{PREFIX}.pth")
    assert (asked["prefix"], asked["progress"]) == (PREFIX, False)
    assert path.read_bytes() == DATA


def test_another_file_of_that_name_is_refused(hub: Path) -> None:
    (hub / "checkpoints" / f"alexnet-{PREFIX}.pth").write_bytes(b"other")
    with pytest.raises(ChecksumMismatchError, match="SHA-256 mismatch"):
        Lpips()


def test_dists_has_its_own_weights_and_images_in_zero_to_one(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Package(nn.Module):
        def __init__(self, load_weights: bool) -> None:
            super().__init__()
            assert not load_weights
            self.alpha, self.beta = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            assert a.shape == b.shape == (1, 3, 64, 80)
            assert (float(a.min()), float(b.max())) == (0.0, 1.0)
            return self.alpha[0] + self.beta[1]

    package = ModuleType("DISTS_pytorch")
    package.DISTS = Package  # type: ignore[attr-defined]
    package.__file__ = str(tmp_path / "__init__.py")
    weights = {"alpha": torch.tensor([0.5, 1.0]), "beta": torch.tensor([2.0, 0.25])}
    torch.save(weights, tmp_path / "weights.pt")
    monkeypatch.setitem(sys.modules, "DISTS_pytorch", package)
    monkeypatch.setitem(learned._FILES, "vgg", f"alexnet-{PREFIX}.pth")
    distance = Dists(offline=True)
    assert distance(torch.full((3, 64, 80), 0.4 / 255), torch.ones(3, 64, 80)) == 0.75
    with pytest.raises(ValueError, match="DISTS needs 64x64"):
        distance(torch.zeros(3, 63, 64), torch.zeros(3, 63, 64))


def test_without_dists_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "DISTS_pytorch", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'realesr-cli\[dists\]'"):
        Dists()
