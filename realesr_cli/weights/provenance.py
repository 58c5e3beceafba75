"""Where a network's weights come from, as the files made of them record it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from realesr_cli._version import __version__
from realesr_cli.nets.architecture import Architecture
from realesr_cli.weights import cache, registry
from realesr_cli.weights.model_files import model_metadata
from realesr_cli.weights.registry import UNKNOWN, RegistryEntry

_OURS = ("format", "architecture", "scale", "license", "sources", "alpha", "tool")
"""Keys of a description that are written anew for every file."""


@dataclass(frozen=True)
class WeightsSource:
    """A file whose weights went into a network, with its share and what it records of itself."""

    name: str
    path: Path
    entry: RegistryEntry | None = None
    share: float = 1.0
    recorded: Mapping[str, Any] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """Plain data: name, SHA-256, license, share, and the sources of a file that names some."""
        sha256 = cache.sha256_of(self.path)
        same = next((e for e in registry.entries() if e.sha256 == sha256), self.entry)
        plain = {
            "name": same.name if same else self.name,
            "sha256": sha256,
            "license": license_of(same, self.recorded),
            "share": self.share,
        }
        earlier = self.recorded.get("sources")
        return {**plain, "sources": earlier} if earlier else plain


def license_of(entry: RegistryEntry | None, recorded: Mapping[str, Any]) -> str:
    """The license the registry states, else the one the file states, else `unknown`."""
    if entry is not None and entry.license != UNKNOWN:
        return entry.license
    return str(recorded.get("license") or UNKNOWN)


def merged_license(licenses: Sequence[str]) -> str:
    """What holds for a mixture: every license of its parts, joined as SPDX does."""
    different = list(dict.fromkeys(licenses)) or [UNKNOWN]
    if len(different) == 1:
        return different[0]
    return " AND ".join(f"({text})" if " " in text else text for text in different)


def describe_network(
    architecture: Architecture, sources: Sequence[WeightsSource]
) -> dict[str, Any]:
    """The description for a file made of these sources: whose weights, and what is known of them.

    What the only source records of itself (its training, its scores) is kept; of a mixture no
    such record would be true.
    """
    plain = [source.describe() for source in sources]
    recorded = sources[0].recorded if len(sources) == 1 else {}
    extra = {key: value for key, value in recorded.items() if key not in _OURS}
    extra |= {
        "license": merged_license([str(source["license"]) for source in plain]),
        "sources": plain,
        "tool": f"realesr-cli {__version__}",
    }
    if len(sources) == 2:
        extra["alpha"] = sources[1].share
    return model_metadata(architecture, extra)
