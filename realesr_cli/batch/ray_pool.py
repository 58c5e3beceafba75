"""Workers as actors of a Ray cluster, one for each GPU, or for every few cores where there is none.

Ray's own retries are used up within seconds when a node is lost, so they are off: the
driver notices that an actor is gone, starts another one, and gives its tasks to those that live.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
import uuid
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from realesr_cli.batch.jobs import Record
from realesr_cli.batch.pool import (
    SLOTS,
    Done,
    Member,
    WorkerPool,
    WorkerSpec,
    WorkerStartError,
    job_of,
)
from realesr_cli.batch.worker import Task
from realesr_cli.errors import MissingDependencyError, RealesrError

CORES = 4
"""CPU cores of a worker where the cluster has no GPU and the number of threads is not given."""

_CONNECT_SECONDS = 10


class RayPool(WorkerPool):
    """Actors of a cluster. `count` and `cores` override what follows from its resources.

    Where this process is connected to a cluster already, that one is used.
    """

    def __init__(
        self, spec: WorkerSpec, address: str = "", *, count: int = 0, cores: float | None = None
    ) -> None:
        self._ray = ray = _import()
        self._connected = not ray.is_initialized()
        if self._connected:
            _connect(ray, address)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = sum(int(node.get("GPU", 0)) for node in nodes) if spec.engine.device != "cpu" else 0
        if cores is None:
            most = max((node.get("CPU", 0) for node in nodes), default=0)
            cores = 1 if gpus else max(1, min(spec.engine.threads or CORES, most))
        fitting = sum(int(node.get("CPU", 0) // cores) for node in nodes)
        super().__init__(count or gpus or max(1, fitting))
        if not gpus:
            threads = spec.engine.threads or max(1, int(cores))
            spec = replace(spec, engine=replace(spec.engine, threads=threads))
        if spec.engine.memory is None:  # Workers of one node share what it has.
            shares = [
                n["memory"] * cores / n["CPU"] for n in nodes if n.get("CPU") and "memory" in n
            ]
            memory = int(min(shares)) if shares and not gpus else None
            spec = replace(spec, engine=replace(spec.engine, memory=memory))
        # Put once: each node fetches the weights once, whatever the number of its actors.
        self._spec = ray.put(pickle.dumps(spec))
        self._actor = ray.remote(
            num_cpus=cores,
            num_gpus=1 if gpus else 0,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=SLOTS + 1,
        )(_Actor)
        self._waiting: dict[Any, tuple[Member, int]] = {}

    def start(self, member: Member) -> None:
        member.handle = self._actor.remote(self._spec)
        self._waiting[member.handle.policy.remote()] = (member, 0)

    def send(self, member: Member, number: int, task: Task) -> None:
        self._waiting[member.handle.make.remote(task)] = (member, number)

    def receive(self, seconds: float) -> list[Done]:
        news: list[Done] = []
        refs = list(self._waiting)
        done, _ = self._ray.wait(refs, num_returns=1, timeout=seconds)
        if done:  # And all others that are.
            done, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0)
        for ref in done:
            if ref not in self._waiting:  # Its worker died at another one of these.
                continue
            member, number = self._waiting.pop(ref)
            try:
                result = self._ray.get(ref)
            except self._ray.exceptions.RayTaskError as error:  # A bug: `make` raises nothing.
                failure = RealesrError(f"unexpected {error.cause!r}")
                result = Record(job_of(member.tasks[number].task), "failed", failure=failure)
            except self._ray.exceptions.RayError as error:
                news += self._forget(member, str(error).strip().splitlines()[-1])
                continue
            if number == 0:
                self.started(member, result)
            else:
                news.append(Done(member, number, result))
        return news

    def _forget(self, member: Member, reason: str) -> Sequence[Done]:
        self._waiting = {ref: of for ref, of in self._waiting.items() if of[0] is not member}
        self._ray.kill(member.handle)
        return self.lost(member, reason)

    def close(self) -> None:
        for member in self.members:
            self._ray.kill(member.handle)
        if self._connected:
            self._ray.shutdown()


class _Actor:
    """A worker on a node of the cluster."""

    def __init__(self, spec: bytes) -> None:
        self._worker, self._policy = pickle.loads(spec).build()

    def policy(self) -> Any:
        return self._policy

    def make(self, task: Task) -> Any:
        return self._worker.make(task)


def _import() -> Any:
    """Import Ray, which reads these variables then, and reports no usage."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # It writes to stderr by itself.
    os.environ.setdefault("RAY_py_gcs_connect_timeout_s", str(_CONNECT_SECONDS))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import ray
    except ImportError as error:
        raise MissingDependencyError(
            "a Ray cluster needs the package ray, which cannot be loaded: "
            "pip install 'realesr-cli[ray]'"
        ) from error
    return ray


def _connect(ray: Any, address: str) -> None:
    """Connect to a cluster: of this address, of RAY_ADDRESS, or one that runs on this machine."""
    known = address or os.environ.get("RAY_ADDRESS", "").removeprefix("ray://")
    host, _, port = known.rpartition(":")
    try:
        if host and port.isdecimal():  # Ray itself would wait for minutes.
            socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
        ray.init(
            address=f"ray://{address}" if address else os.environ.get("RAY_ADDRESS") or "auto",
            namespace=f"realesr-{uuid.uuid4().hex}",
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (OSError, RuntimeError, ValueError) as error:
        reason = ""
        if not isinstance(error, OSError) or error.strerror:  # Ray's own is about its options.
            reason = f": {getattr(error, 'strerror', None) or str(error).splitlines()[0]}"
        text = f"no Ray cluster can be reached at {known or 'this machine'}{reason}"
        raise WorkerStartError(text, advice="ray-address") from error
