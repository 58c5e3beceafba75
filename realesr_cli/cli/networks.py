"""The one or two networks of `realesr upscale`: found by name, opened, or stood in for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from realesr_cli.cli.terminal import ProgressBar
from realesr_cli.errors import ConfigError

if TYPE_CHECKING:
    from realesr_cli.weights.load import OpenedModel
    from realesr_cli.weights.locate import LocatedModel


@dataclass(frozen=True)
class NamedModel:
    """A network as the user named it, and where it is; nothing is downloaded or read yet."""

    model: str
    located: LocatedModel
    scale: float | None = None
    """The factor that `auto` decides by."""
    denoise: float | None = None

    @property
    def download(self) -> int | None:
        """Bytes to download, 0 where their number is unknown; None where all is cached."""
        entries = [part.entry for part in self.located.parts if part.path is None]
        return sum(e.bytes or 0 for e in entries if e is not None) if entries else None


def find_model(
    model: str, *, scale: float | None = None, denoise: float | None = None
) -> NamedModel:
    """Find a model. Raises what `locate` raises, and ConfigError for a denoise it cannot have."""
    from realesr_cli.weights.locate import denoise_partner, locate

    if not model:
        raise ConfigError("the model is empty; is a shell variable unset?")
    located = locate(model, scale=scale)
    if denoise is not None:
        denoise_partner(located)
    return NamedModel(model, located, scale, denoise)


def require_blendable(first: NamedModel, second: NamedModel) -> None:
    """Raise ConfigError where two networks cannot be blended, as far as is known already."""
    from realesr_cli.engine.forward import require_same_scale

    known = [(n.located.name, n.located.known_architecture) for n in (first, second)]
    sizes = [(name, found.scale) for name, found in known if found is not None]
    if len(sizes) == 2:
        require_same_scale(sizes[0], sizes[1])


def open_network(named: NamedModel, *, offline: bool | None, quiet: bool) -> OpenedModel:
    """Open a model, downloading it if needed."""
    from realesr_cli.weights.load import open_model

    with ProgressBar(named.located.name, bytes=True, enabled=not quiet) as progress:
        return open_model(
            named.model,
            scale=named.scale,
            denoise=named.denoise,
            offline=offline,
            report=progress,
        )


def open_stand_in(named: NamedModel, *, offline: bool | None) -> OpenedModel:
    """Open a network that costs as much: the named one where that needs no download."""
    from realesr_cli.weights.load import OpenedModel
    from realesr_cli.weights.model_files import load_model

    located, known = named.located, named.located.known_architecture
    if named.download is not None and known is not None:
        # Costs depend on the shape of the network, and by a few percent on the overlap that
        # would be measured on the real weights.
        return OpenedModel(known.build().eval(), located.name, None, located.entry)
    if located.path is not None:  # Without the partner that denoising may have to download.
        net = load_model(located.path)
        return OpenedModel(net, located.name, located.path, located.entry)
    return open_network(named, offline=offline, quiet=True)
