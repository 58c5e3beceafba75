"""The reference's networks and download function, and networks for `RealESRGANer`."""

from __future__ import annotations

import copy
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

from torch import Tensor, nn

from realesr_cli.atomic import atomic_path
from realesr_cli.errors import ConfigError, DownloadError, UnknownArchitectureError
from realesr_cli.nets.architecture import Architecture, Generator, Shapes, shapes_of
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.nets.detection import detect
from realesr_cli.nets.rrdbnet import RRDBArchitecture
from realesr_cli.weights import registry
from realesr_cli.weights.checkpoints import read_state
from realesr_cli.weights.download import AddressError, discard, download
from realesr_cli.weights.fetch import DEFAULT_RETRY, ensure, is_offline
from realesr_cli.weights.load import open_model
from realesr_cli.weights.locate import require_same_architecture
from realesr_cli.weights.model_files import build_network, recognize


def RRDBNet(
    num_in_ch: int,
    num_out_ch: int,
    scale: int = 4,
    num_feat: int = 64,
    num_block: int = 23,
    num_grow_ch: int = 32,
) -> Generator:
    """Return an untrained RRDBNet, described as the reference does."""
    if scale not in (1, 2, 4):
        raise ConfigError(f"scale = {scale}: must be 1, 2 or 4 for an RRDBNet of the reference")
    architecture = RRDBArchitecture(
        scale=scale,
        blocks=num_block,
        features=num_feat,
        growth=num_grow_ch,
        unshuffle=4 // scale,
        in_channels=num_in_ch,
        out_channels=num_out_ch,
    )
    return architecture.build()


def SRVGGNetCompact(
    num_in_ch: int = 3,
    num_out_ch: int = 3,
    num_feat: int = 64,
    num_conv: int = 16,
    upscale: int = 4,
    act_type: str = "prelu",
) -> Generator:
    """Return an untrained Compact network, described as the reference does."""
    return CompactArchitecture(upscale, num_conv, num_feat, act_type, num_in_ch, num_out_ch).build()


def load_file_from_url(
    url: str, model_dir: str | None = None, progress: bool = True, file_name: str | None = None
) -> str:
    """Return the path of a file, downloaded to `model_dir` unless it is there.

    `model_dir` defaults to the cache folder. The SHA-256 of registered models is checked; of other
    files nothing is known. `progress` has no effect: a library prints nothing. Raises DownloadError
    and what `weights.fetch.ensure` raises.
    """
    name = file_name or PurePosixPath(urlsplit(url).path).name
    path = Path(os.path.expanduser(model_dir or registry.weights_dir())).resolve() / Path(name).name
    if path.is_file():
        return str(path)
    entry = registry.find(name)
    if entry is None and is_offline():
        raise DownloadError(f"{url}: offline mode forbids downloads")
    path.parent.mkdir(parents=True, exist_ok=True)
    if entry is not None:
        source = ensure(entry)
        if model_dir is None:
            return str(source)
        with atomic_path(path) as temporary:
            shutil.copyfile(source, temporary)
        return str(path)
    part = path.with_name(path.name + ".part")
    try:
        download(url, part, None, retry=DEFAULT_RETRY)
    except AddressError as error:
        raise DownloadError(f"{url}: {error}") from error
    os.replace(part, path)
    discard(part)
    return str(path)


def load_network(
    model_path: str | Path | Sequence[str | Path],
    dni_weight: Sequence[float] | None,
    given: nn.Module | None,
) -> Generator:
    """Return the network of a file, name or address, or the weighted sum of two.

    `given` is compared with it, and gets its weights if it is one of ours. Raises ConfigError where
    the arguments contradict each other or the file, and what `open_model` raises.
    """
    known = None if given is None else _describe_module(given)
    if isinstance(model_path, (str, Path)):
        if dni_weight is not None:
            raise ConfigError("dni_weight sums two models: expected model_path as a list of two")
        network = _load(model_path, known)
    elif dni_weight is None or len(model_path) != 2 or len(dni_weight) != 2:
        raise ConfigError("expected two models in model_path, and their two weights in dni_weight")
    else:
        first, second = (_load(path, known) for path in model_path)
        names = (str(model_path[0]), str(model_path[1]))
        require_same_architecture(first.architecture, second.architecture, names)
        share, other = (float(weight) for weight in dni_weight)
        rest = second.state_dict()
        summed = {key: share * t + other * rest[key] for key, t in first.state_dict().items()}
        network = build_network(summed, first.architecture)
    if known is not None and known != network.architecture:
        raise ConfigError(
            f"model is {known.describe()}, but the weights are of "
            f"{network.architecture.describe()}; omit model, since the file says what it is"
        )
    if isinstance(given, Generator):
        given.load_state_dict(network.state_dict())
        return given.eval().requires_grad_(False)
    return network


def _describe_module(module: nn.Module) -> Architecture:
    if isinstance(module, Generator):
        return module.architecture
    return detect(shapes_of(module.state_dict())).architecture


def _load(model: str | Path, known: Architecture | None) -> Generator:
    """Open one model; `known` settles what its tensors cannot."""
    if str(model).startswith(("https://", "http://")):
        model = load_file_from_url(str(model))
    if not Path(model).is_file():
        return open_model(model).net
    state, metadata = read_state(model)
    architecture, state = recognize(state, metadata, str(model), known)
    return build_network(state, architecture)


@dataclass(frozen=True)
class ForeignArchitecture(Architecture):
    """A network that is not ours: only its scale is known."""

    kind: ClassVar[str] = "foreign"

    scale: int = 4
    features: int = 64
    receptive_radius: int = 1024
    """Not known; far more than any overlap, so that tiles are blended."""
    values_per_pixel: int = 64 * 16 * 3
    multiple: int = 4
    card: tuple[str, tuple[str, ...]] = ("foreign", ())

    def build(self) -> Generator:
        """Raise UnknownArchitectureError: there is nothing to build."""
        raise UnknownArchitectureError("a foreign network cannot be built")

    def describe(self) -> str:
        """Return one line for people."""
        return f"foreign network x{self.scale}"

    @classmethod
    def detect(cls, shapes: Shapes) -> tuple[Self, ...]:
        """Return none: it is never detected."""
        return ()


class ForeignNetwork(Generator):
    """Any function from (1, 3, H, W) to (1, 3, H * scale, W * scale) as a network of ours."""

    def __init__(self, function: Any, scale: int) -> None:
        super().__init__(ForeignArchitecture(scale))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 3, H * scale, W * scale)."""
        result: Tensor = self.function(x)
        return result

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return itself unless it is a module: sessions of other libraries cannot be copied."""
        if not isinstance(self.function, nn.Module):
            return self
        return type(self)(copy.deepcopy(self.function, memo), self.architecture.scale)


def as_generator(model: Any, scale: int) -> Generator:
    """Return a network of ours as it is, any other as a `ForeignNetwork` of this scale."""
    if isinstance(model, Generator):
        return model
    if not callable(model):
        raise ConfigError(f"model is {type(model).__name__}: expected a network")
    return ForeignNetwork(model, scale)


def install_modules() -> None:
    """Make `import basicsr` and `import realesrgan` of the reference's scripts find this package.

    Call it before such imports; it replaces these two packages in this process, with what the
    inference scripts import from them and nothing else.
    """
    from realesr_cli.compat.upsampler import RealESRGANer

    contents: dict[str, dict[str, Any]] = {
        "basicsr.archs.rrdbnet_arch": {"RRDBNet": RRDBNet},
        "basicsr.utils.download_util": {"load_file_from_url": load_file_from_url},
        "realesrgan": {"RealESRGANer": RealESRGANer},
        "realesrgan.utils": {"RealESRGANer": RealESRGANer},
        "realesrgan.archs.srvgg_arch": {"SRVGGNetCompact": SRVGGNetCompact},
    }
    for name, values in contents.items():
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            path = ".".join(parts[:end])
            module = sys.modules.get(path)
            if module is None or getattr(module, "__file__", None):
                module = sys.modules[path] = ModuleType(path)
                module.__path__ = []
            if end > 1:
                setattr(sys.modules[".".join(parts[: end - 1])], parts[end - 1], module)
        vars(sys.modules[name]).update(values)
