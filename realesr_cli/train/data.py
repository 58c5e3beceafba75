"""Training batches: crops prepared ahead in a thread, degraded on the device."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from realesr_cli.degrade.pairs import Pair, PairPlan, Pool, make_pairs
from realesr_cli.degrade.presets import PRESETS
from realesr_cli.train.config import TrainConfig
from realesr_cli.train.cropping import CropBatch, Crops
from realesr_cli.train.machine import Machine, Stopwatch
from realesr_cli.train.settings import DEGRADED, UNDEGRADED

T = TypeVar("T")


class Batches:
    """Yields the training pairs of consecutive steps; use as a context manager.

    What a step gets depends on its number and stream alone, except for the pool, which is part of
    the checkpoint.
    """

    def __init__(
        self,
        crops: Crops,
        config: TrainConfig,
        machine: Machine,
        *,
        pool: Pool | None,
        steps: range,
        streams: Sequence[int],
    ) -> None:
        """`steps` are numbers of the whole run, over all stages."""
        self._config = config
        self._machine = machine
        self._pool = pool
        self._streams = streams
        keys = ((step, stream) for step in steps for stream in streams)
        self._crops = crops
        self._prefetcher = Prefetcher(self._prepare, keys, config.data.prefetch)

    def __enter__(self) -> Batches:
        self._prefetcher.__enter__()
        return self

    def __exit__(self, *details: object) -> None:
        self._prefetcher.__exit__(*details)

    def take(self, step: int, watch: Stopwatch) -> list[Pair]:
        """Return the pairs of the next step, one per stream, and mark the time spent."""
        crops = [self._prefetcher.take(step, stream) for stream in self._streams]
        watch.mark("data")
        pairs = [self._make_pair(batch) for batch in crops]
        watch.mark("degradation")
        return pairs

    def _prepare(self, step: int, stream: int) -> PinnedCrops:
        return PinnedCrops.of(self._crops.batch(step, stream), self._machine)

    def _make_pair(self, crops: PinnedCrops) -> Pair:
        pair = degrade_crops(crops, self._config, self._machine)
        return pair if self._pool is None else self._pool.exchange(pair, crops.rng)


@dataclass(frozen=True)
class PinnedCrops:
    """A `CropBatch` as tensors, ready to be copied to the device."""

    gt: Tensor | None
    paired_gt: Tensor | None
    paired_lq: Tensor | None
    rng: np.random.Generator

    @classmethod
    def of(cls, batch: CropBatch, machine: Machine) -> PinnedCrops:
        """Convert a batch; in the prefetching thread, because pinning takes time."""
        gt, paired_gt, paired_lq = (
            None if pixels is None else machine.pin(torch.from_numpy(pixels))
            for pixels in (batch.gt, batch.paired_gt, batch.paired_lq)
        )
        return cls(gt, paired_gt, paired_lq, batch.rng)


def degrade_crops(batch: PinnedCrops, config: TrainConfig, machine: Machine) -> Pair:
    """Turn crops into a training batch on the device: degraded and cut, or as real pairs."""
    found: list[Pair] = []
    if batch.gt is not None:
        found += _make_inputs(machine.images(batch.gt), config, batch.rng, machine)
    if batch.paired_gt is not None and batch.paired_lq is not None:
        gt = machine.images(batch.paired_gt)
        found.append(Pair(machine.images(batch.paired_lq), gt, gt))
    if len(found) == 1:
        return found[0]
    lq, gt, gt_usm = (
        torch.cat([getattr(pair, name) for pair in found]) for name in ("lq", "gt", "gt_usm")
    )
    if all(pair.without_gt is None for pair in found):
        return Pair(lq, gt, gt_usm)
    masks = [
        torch.zeros(len(pair.lq), dtype=torch.bool, device=lq.device)
        if pair.without_gt is None
        else pair.without_gt
        for pair in found
    ]
    return Pair(lq, gt, gt_usm, torch.cat(masks))


def _make_inputs(
    gt: Tensor, config: TrainConfig, rng: np.random.Generator, machine: Machine
) -> list[Pair]:
    """Make the kinds of input that `data.inputs` asks for; one pair of batches for each drawn."""
    data = config.data
    plan = PairPlan(
        scale=config.scale,
        patch=data.patch,
        sharpened_gt=config.sharpens,
        noise_device="input" if machine.device.type == "cuda" else "cpu",
    )
    if data.inputs == (DEGRADED,):
        return [make_pairs(gt, config.degradation, rng, plan)]
    shares = np.asarray(data.input_shares or [1.0] * len(data.inputs))
    drawn = rng.choice(len(shares), size=len(gt), p=shares / shares.sum())
    found = []
    for number, kind in enumerate(data.inputs):
        chosen = gt[torch.from_numpy(np.flatnonzero(drawn == number)).to(gt.device)]
        if len(chosen) and kind == UNDEGRADED:
            found.append(_cut_undegraded(chosen, config, rng))
        elif len(chosen):
            degradation = config.degradation if kind == DEGRADED else PRESETS[kind]
            found.append(make_pairs(chosen, degradation, rng, plan))
    return found


def _cut_undegraded(images: Tensor, config: TrainConfig, rng: np.random.Generator) -> Pair:
    """Cut inputs out of images as they are; what they show at the output size is not known."""
    patch = config.data.patch
    free = (images.shape[-2] - patch + 1, images.shape[-1] - patch + 1)
    corners = rng.integers(0, free, size=(len(images), 2))
    lq = torch.stack(
        [
            image[:, top : top + patch, left : left + patch]
            for image, (top, left) in zip(images, corners, strict=True)
        ]
    )
    side = patch * config.scale
    nothing = torch.zeros((len(images), 3, side, side), device=images.device)
    return Pair(lq, nothing, nothing, torch.ones(len(images), dtype=torch.bool, device=lq.device))


class Prefetcher(Generic[T]):
    """Calls `make` for each key in order, up to `ahead` results before they are taken.

    What is made depends on the key alone, so working ahead changes nothing but the waiting time. An
    exception of `make` is raised where its result would have been taken. Use as a context manager.
    """

    def __init__(
        self, make: Callable[[int, int], T], keys: Iterator[tuple[int, int]], ahead: int
    ) -> None:
        self._make = make
        self._keys = keys
        self._ahead = ahead
        self._results: queue.Queue[tuple[tuple[int, int], T | BaseException]] = queue.Queue(ahead)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="prefetch", daemon=True)

    def __enter__(self) -> Prefetcher[T]:
        if self._ahead:
            self._thread.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._stop.set()
        if self._ahead:
            self._thread.join()

    def take(self, step: int, stream: int) -> T:
        """Return the result of a key, which must be the next one in order."""
        if not self._ahead:
            return self._make(step, stream)
        key, result = self._results.get()
        if isinstance(result, BaseException):
            raise result
        if key != (step, stream):
            raise RuntimeError(f"prefetched {key}, requested {(step, stream)}")
        return result

    def _work(self) -> None:
        for key in self._keys:
            try:
                result: T | BaseException = self._make(*key)
            except BaseException as error:
                # Raised again in the thread that takes it.
                result = error
            while not self._stop.is_set():
                try:
                    self._results.put((key, result), timeout=0.1)
                    break
                except queue.Full:
                    continue
            if self._stop.is_set() or isinstance(result, BaseException):
                return
