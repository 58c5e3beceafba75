"""The one or two networks of `realesr upscale`: as they were named, opened, or stood in for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from realesr_cli.cli.terminal import ProgressBar

if TYPE_CHECKING:
    from realesr_cli.nets.architecture import Generator
    from realesr_cli.weights.load import OpenedModel
    from realesr_cli.weights.locate import LocatedModel


@dataclass(frozen=True)
class NamedModel:
    """A network as the user named it, and where it is; nothing is fetched or read yet."""

    model: str
    located: LocatedModel
    scale: float | None = None
    """The factor that `auto` decides by."""
    denoise: float | None = None

    @property
    def absent(self) -> int | None:
        """Bytes that would be fetched, 0 where that is not known; None where all is here."""
        entries = [part.entry for part in self.located.parts if part.path is None]
        return sum(e.bytes or 0 for e in entries if e is not None) if entries else None


def named(model: str, *, scale: float | None = None, denoise: float | None = None) -> NamedModel:
    """Find a model. Raises what `locate` raises, and ConfigError for a denoise that cannot be."""
    from realesr_cli.weights.locate import denoise_partner, locate

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


def opened(one: NamedModel, *, offline: bool | None, quiet: bool) -> OpenedModel:
    """The network itself, fetched if need be."""
    from realesr_cli.weights.load import open_model

    with ProgressBar(one.located.name, bytes=True, enabled=not quiet) as progress:
        return open_model(
            one.model, scale=one.scale, denoise=one.denoise, offline=offline, report=progress
        )


def stand_in(one: NamedModel, *, offline: bool | None) -> Generator:
    """A network that costs as much: the named one where that needs no fetching."""
    from realesr_cli.weights.model_files import load_model

    known = one.located.known_architecture
    if one.absent is not None and known is not None:
        # Costs depend on the shape of the network, and by a few percent on the overlap that
        # would be measured on the real weights.
        return known.build().eval()
    if one.located.path is not None:
        return load_model(one.located.path)  # without the partner that --denoise may have to fetch
    return opened(one, offline=offline, quiet=True).net
