"""Stand-ins for the reference's names: its scripts run with two import lines changed.

    from realesr_cli.compat import RealESRGANer, RRDBNet, SRVGGNetCompact, load_file_from_url

Differences from the reference: bit depth comes from the array's dtype and not from its values;
another size than the network's own is reached by an antialiased resize before the only rounding;
color is spread under transparent pixels before the network sees it; one object may serve many
threads through `enhance`.
"""

from realesr_cli.compat.reference import (
    RRDBNet,
    SRVGGNetCompact,
    install_modules,
    load_file_from_url,
)
from realesr_cli.compat.upsampler import RealESRGANer

__all__ = ["RRDBNet", "RealESRGANer", "SRVGGNetCompact", "install_modules", "load_file_from_url"]
