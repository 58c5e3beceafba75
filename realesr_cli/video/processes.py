"""Chunks done in this process, or in one process for each device; the result is the same."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import signal
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from realesr_cli.engine.settings import EngineSettings
from realesr_cli.engine.upscaler import Upscaler, build_upscaler
from realesr_cli.errors import CancelledError, RealesrError, RealesrWarning
from realesr_cli.progress import StopRequested
from realesr_cli.video.chunks import ChunkWorker
from realesr_cli.video.journal import VideoJob
from realesr_cli.video.video_plan import VideoPlan

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from realesr_cli.weights.locate import LocatedModel

_POLL_SECONDS = 0.2
_PATIENCE_SECONDS = 30
"""Time that a process has to end after it was asked to."""

OnFrame = Callable[[], None]


@dataclass(frozen=True)
class WorkerTask:
    """All that a process needs to begin."""

    plan: VideoPlan
    models: tuple[LocatedModel, ...]
    engine: EngineSettings


def run_here(
    plan: VideoPlan,
    upscaler: Upscaler,
    job: VideoJob,
    on_frame: OnFrame,
    stop_requested: StopRequested,
) -> None:
    """Do all chunks that are left in this process."""
    worker = ChunkWorker.of(plan, upscaler)
    for number in _pending(plan, job):
        job.begin(number)
        part = job.part(number)
        job.commit(worker.run(number, part, on_frame, stop_requested), part)


def _pending(plan: VideoPlan, job: VideoJob) -> list[int]:
    return [number for number in range(len(plan.chunks)) if number not in job.done]


def run_in_processes(
    tasks: Sequence[WorkerTask], job: VideoJob, on_frame: OnFrame, stop_requested: StopRequested
) -> None:
    """Do all chunks that are left in one process for each task; only this one writes the journal.

    Processes are spawned, since neither torch nor FFmpeg survives a fork. Raises CancelledError
    when asked to stop, and the error of a process, after all of them have ended.
    """
    plan = tasks[0].plan
    pending = _pending(plan, job)
    context = multiprocessing.get_context("spawn")
    running: dict[Connection, BaseProcess] = {}
    try:
        for task in tasks[: len(pending)]:
            here, there = context.Pipe()
            process: BaseProcess = context.Process(target=_work, args=(task, there), daemon=True)
            process.start()
            there.close()  # So that the end of the process shows here.
            running[here] = process
        _serve(running, plan, job, pending, on_frame, stop_requested)
    finally:
        for connection in running:
            connection.close()  # Which ends what still works, at its next frame.
        deadline = time.monotonic() + _PATIENCE_SECONDS
        for process in running.values():
            process.join(max(0.1, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()


def _serve(
    running: dict[Connection, BaseProcess],
    plan: VideoPlan,
    job: VideoJob,
    pending: list[int],
    on_frame: OnFrame,
    stop_requested: StopRequested,
) -> None:
    """Hand out chunks until all are done."""
    left = len(pending)
    while left:
        if stop_requested():
            raise CancelledError("cancelled")
        for ready in wait(list(running), timeout=_POLL_SECONDS):
            assert isinstance(ready, Connection)
            try:
                kind, value = ready.recv()
            except (EOFError, OSError):
                process = running[ready]
                process.join(_PATIENCE_SECONDS)
                raise RealesrError(
                    f"a worker process ended unexpectedly (exit code {process.exitcode})",
                    advice="video-resume",
                ) from None
            if kind == "error":
                raise value
            if kind == "warning":
                warnings.warn(value, stacklevel=2)
            elif kind == "frame":
                on_frame()
            else:
                if kind == "done":
                    chunk, part = value
                    job.commit(chunk, part)
                    left -= 1
                if pending:
                    number = pending.pop(0)
                    job.begin(number)
                    ready.send((number, job.part(number)))


def _work(task: WorkerTask, connection: Connection) -> None:
    """Be a worker process: ask for chunks and do them until the pipe is closed."""
    # Ctrl-C goes to the whole group of processes, but how to stop is the first one's business.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def send(kind: str, value: Any = None) -> None:
        connection.send((kind, value))

    def show(message: Warning | str, category: type[Warning], *rest: Any, **named: Any) -> None:
        if isinstance(message, RealesrWarning):
            send("warning", message)

    warnings.showwarning = show
    warnings.simplefilter("always", RealesrWarning)
    # A closed pipe means that the first process has ended: nobody wants the rest.
    with contextlib.suppress(BrokenPipeError, EOFError, ConnectionResetError):
        try:
            worker = ChunkWorker.of(task.plan, open_upscaler(task.models, task.engine))
            send("ready")
            while True:
                number, part = connection.recv()
                chunk = worker.run(number, part, lambda: send("frame"), lambda: False)
                send("done", (chunk, part))
        except (BrokenPipeError, EOFError, ConnectionResetError):
            raise
        except RealesrError as error:
            send("error", error)
        except MemoryError as error:
            send("error", RealesrError(f"a worker process ran out of memory: {error}"))
        except Exception as error:
            import traceback

            send("error", RuntimeError(f"in a worker process: {traceback.format_exc()}{error}"))


def open_upscaler(models: Sequence[LocatedModel], engine: EngineSettings) -> Upscaler:
    """Open models that are on this machine already."""
    from realesr_cli.weights.load import open_model

    return build_upscaler([open_model(model, offline=True) for model in models], engine)


def share_threads(engine: EngineSettings, devices: Sequence[str]) -> list[EngineSettings]:
    """Return the settings of each worker; those on the CPU share its cores."""
    import torch

    on_cpu = sum(device == "cpu" for device in devices)
    threads = engine.threads
    if threads is None and on_cpu > 1:
        threads = max(1, torch.get_num_threads() // on_cpu)
    return [dataclasses.replace(engine, device=name, threads=threads) for name in devices]
