"""The one or two networks of `realesr upscale`: found by name, opened, or stood in for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from realesr_cli.cli.terminal import ProgressBar
from realesr_cli.errors import ConfigError

if TYPE_CHECKING:
    from realesr_cli.weights.load import OpenedModel
    from realesr_cli.weights.locate import LocatedModel


def find_model(
    model: str, *, scale: float | None = None, denoise: float | None = None
) -> LocatedModel:
    """Find a model: `locate`, imported when it is called."""
    from realesr_cli.weights.locate import locate

    if not model:
        raise ConfigError("the model is empty; is a shell variable unset?")
    return locate(model, scale=scale, denoise=denoise)


def require_blendable(first: LocatedModel, second: LocatedModel) -> None:
    """Raise ConfigError where two networks cannot be blended, as far as is known already."""
    from realesr_cli.engine.forward import require_same_scale

    known = [(one.name, one.known_architecture) for one in (first, second)]
    sizes = [(name, found.scale) for name, found in known if found is not None]
    if len(sizes) == 2:
        require_same_scale(sizes[0], sizes[1])


def open_network(located: LocatedModel, *, offline: bool | None, quiet: bool) -> OpenedModel:
    """Open a model, downloading it if needed."""
    from realesr_cli.weights.load import open_model

    with ProgressBar(located.name, bytes=True, enabled=not quiet) as progress:
        return open_model(located, offline=offline, progress=progress)


def open_stand_in(located: LocatedModel, *, offline: bool | None) -> OpenedModel:
    """Open a network that costs as much: the named one where that needs no download."""
    from realesr_cli.weights.load import OpenedModel
    from realesr_cli.weights.model_files import load_model

    known = located.known_architecture
    if located.download_bytes is not None and known is not None:
        # Costs depend on the shape of the network, and by a few percent on the overlap that
        # would be measured on the real weights.
        return OpenedModel(known.build().eval(), located.name, None, located.entry)
    if located.path is not None:  # Without the partner that denoising may have to download.
        net = load_model(located.path)
        return OpenedModel(net, located.name, located.path, located.entry)
    return open_network(located, offline=offline, quiet=True)
