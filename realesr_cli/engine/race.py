"""The choice of a backend by measuring: torch's own way against those of other libraries.

Which library is faster depends on the processor and on the network, so `auto` measures it, on an
image, with everything that upscaling does, each in turn in one process. The result is remembered in
the cache folder for as long as machine, family of networks, settings and versions stay the same.
"""

from __future__ import annotations

import dataclasses
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from realesr_cli.engine import backends, policy, trial
from realesr_cli.engine.backends.base import LibraryBackend
from realesr_cli.engine.forward import reference_pattern
from realesr_cli.engine.guard import get_architecture
from realesr_cli.engine.policy import MachineInfo, Policy
from realesr_cli.engine.settings import EngineSettings
from realesr_cli.errors import DeviceError, RealesrError, RealesrWarning
from realesr_cli.nets.architecture import Architecture
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.nets.rrdbnet import RRDBArchitecture

if TYPE_CHECKING:
    from realesr_cli.engine.upscaler import Upscaler

MARGIN = 1.10
"""Another library must be this many times as fast as torch to be used."""

PASS_SECONDS = 0.3
"""How long one image of the race may take; its size follows from that."""

RACE_SECONDS = 1.2

MEGAPIXEL = (1000, 1000)


@dataclass(frozen=True)
class Rate:
    """What one backend reaches.

    `pixels` are input pixels per second of an image of one megapixel, computed from those of a
    smaller one and the overlap of the tiles of the larger.
    """

    backend: str
    precision: str
    tile: int
    pixels: float


@dataclass(frozen=True)
class Race:
    """The rates of torch's own way and of another library, on the family of a network."""

    family: str
    own: Rate
    rival: Rate

    @property
    def ratio(self) -> float:
        """How many times as fast the other library is."""
        return self.rival.pixels / self.own.pixels


def select_policy(
    network: nn.Module, machine: MachineInfo, engine: EngineSettings, own: Policy
) -> Policy:
    """Return `own`, what `policy.choose` decides, or that of a backend that is right and faster.

    Raises DeviceError for a requested backend that fails its trial.
    """
    architecture = get_architecture(network)
    backend = backends.find_backend(own.backend)
    if isinstance(backend, LibraryBackend):
        result = trial.check_backend(network, own, backend)
        if result.usable:
            return own
        text = f"backend {backend.name} cannot compute this model: {result.reason}"
        raise DeviceError(text, advice="backend")
    if trial.in_child():
        return own
    best, chosen = MARGIN, own
    for rival in backends.find_rivals(machine, own.device):
        race = run_race(rival, machine, engine, own, architecture)
        if race is None or race.ratio < best:
            continue
        wanted = dataclasses.replace(engine, device=own.device, backend=rival.name)
        found = policy.choose(machine, wanted, architecture)
        if trial.check_backend(network, found, rival).usable:
            why = f"backend {rival.name}: measured {race.ratio:.2f} times as fast as {own.backend}"
            reasons = (own.reasons[0], why, *found.reasons[2:])
            best, chosen = race.ratio, dataclasses.replace(found, reasons=reasons)
    return chosen


def run_race(
    rival: LibraryBackend,
    machine: MachineInfo,
    engine: EngineSettings,
    own: Policy,
    architecture: Architecture,
) -> Race | None:
    """Measure a backend against torch's own way; remembered. None where it cannot take part."""
    family = shorten(architecture)
    entries = [
        EngineSettings(own.device, engine.precision, backend=name, threads=engine.threads)
        for name in (own.backend, rival.name)
    ]
    try:
        policy.choose(machine, entries[1], family)
    except RealesrError:
        return None
    details = [family.describe(), own.threads, *dataclasses.astuple(entries[0])]
    record = trial.record_path("race", rival, details)
    known = trial.read_record(record, ["family"])
    if known is None:
        text = f"measuring backend {rival.name} once, which takes some seconds"
        warnings.warn(RealesrWarning(text), stacklevel=2)
        output = trial.run_in_child(rival, measure_family, (family, entries))
        known = {"family": family.describe()}
        if isinstance(output, trial.TrialFailure):
            text = f"backend {rival.name} is not used: {output.reason}"
            warnings.warn(RealesrWarning(text), stacklevel=2)
            known["problem"] = output.reason
        else:
            known |= {"own": dataclasses.asdict(output[0]), "rival": dataclasses.asdict(output[1])}
        trial.write_record(record, known)
    return _to_race(known)


def _to_race(record: dict[str, Any]) -> Race | None:
    """Return the race of a record; None for that of a failure, and for a damaged one."""
    try:
        own, rival = Rate(**record["own"]), Rate(**record["rival"])
        return Race(str(record["family"]), own, rival) if own.pixels > 0 else None
    except (KeyError, TypeError):
        return None


def remembered_races() -> Iterator[Race]:
    """Yield the races in the cache folder, whatever versions they are of."""
    from realesr_cli.weights.registry import home

    for path in sorted((home() / "backends").glob("race-*.json")):
        race = _to_race(trial.read_record(path, ["family"]) or {})
        if race is not None:
            yield race


def shorten(architecture: Architecture) -> Architecture:
    """Return the family of a network: the same layers, but fewer of them."""
    if isinstance(architecture, RRDBArchitecture):
        return dataclasses.replace(architecture, blocks=min(4, architecture.blocks))
    if isinstance(architecture, CompactArchitecture):
        return dataclasses.replace(architecture, convs=min(16, architecture.convs))
    return architecture


def measure_family(family: Architecture, entries: Sequence[EngineSettings]) -> list[Rate]:
    """Enlarge an image in several ways, in turn, and return the best rate of each.

    The first entry decides the size of the image: one that takes PASS_SECONDS.
    """
    from realesr_cli.engine.upscaler import Upscaler

    network = family.build().eval()
    upscalers = [Upscaler(network, entry) for entry in entries]
    side = 128
    spent = min(_time_image(upscalers[0], side) for _ in range(2))
    side = round(side * math.sqrt(PASS_SECONDS / spent)) // 32 * 32
    side = max(96, min(768, side))
    for upscaler in upscalers:
        _time_image(upscaler, side)
    best = [math.inf] * len(upscalers)
    rounds, began = 0, time.perf_counter()
    while rounds < 2 or (time.perf_counter() - began < RACE_SECONDS and rounds < 8):
        best = [min(b, _time_image(u, side)) for b, u in zip(best, upscalers, strict=True)]
        rounds += 1
    return [
        _to_rate(upscaler, side, seconds) for upscaler, seconds in zip(upscalers, best, strict=True)
    ]


def _to_rate(upscaler: Upscaler, side: int, seconds: float) -> Rate:
    from realesr_cli.engine.estimate import ImageShape

    read = upscaler.estimate(ImageShape(side, side)).network_pixels
    read_of_large = upscaler.estimate(ImageShape(*MEGAPIXEL)).network_pixels
    pixels = read / seconds * math.prod(MEGAPIXEL) / read_of_large
    chosen = upscaler.policy
    return Rate(chosen.backend, chosen.precision, chosen.tile, pixels)


def _time_image(upscaler: Upscaler, side: int) -> float:
    from realesr_cli.image.types import Image

    pattern = reference_pattern(side, side)[0].permute(1, 2, 0)
    image = Image(pattern.mul(255).byte().contiguous().numpy())
    began = time.perf_counter()
    upscaler(image)
    return time.perf_counter() - began
