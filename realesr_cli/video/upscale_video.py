"""`upscale_video(source, target)`: a whole film, resumable, with a report of what became of it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realesr_cli._version import __version__
from realesr_cli.atomic import atomic_path, remove_stale_files, write_errors
from realesr_cli.engine import policy as policies
from realesr_cli.engine.settings import EngineSettings, UpscaleSettings
from realesr_cli.engine.upscaler import WHOLE_MARGIN, Upscaler
from realesr_cli.errors import ConfigError, DamagedVideoError, VideoError
from realesr_cli.nets.architecture import Architecture
from realesr_cli.progress import Progress, StopRequested, never, no_progress
from realesr_cli.settings import to_plain, with_values
from realesr_cli.video import processes
from realesr_cli.video.animations import write_animation
from realesr_cli.video.journal import VideoJob
from realesr_cli.video.mux import write_film
from realesr_cli.video.report import (
    VideoReport,
    report_from_plain,
    report_to_plain,
    sum_up,
    write_report,
)
from realesr_cli.video.settings import VideoSettings, parse_devices
from realesr_cli.video.video_plan import VideoPlan, make_plan
from realesr_cli.weights.cache import sha256_of

if TYPE_CHECKING:
    from realesr_cli.weights.load import OpenedModel
    from realesr_cli.weights.locate import LocatedModel

MOST_CONCEALED = 0.05
"""A larger part of frames that cannot be decoded is refused."""

_FREE_SETTINGS = (
    "tile_cache", "workers", "audio", "subs", "drop_incompatible", "strict", "resume", "job_dir",
    "keep_job", "overwrite", "start", "end", "frames",
)  # fmt: skip
"""Settings that change no frame, or that show in the list of chunks."""


@dataclass(frozen=True)
class VideoModel:
    """The network of a video: located, or an Upscaler of the caller's."""

    name: str
    located: LocatedModel | None
    architecture: Architecture
    identity: Mapping[str, Any]
    """What says that a resumed run has the same one."""
    upscaler: Upscaler | None = None

    @staticmethod
    def of(upscaler: Upscaler) -> VideoModel:
        """Use an Upscaler; its weights are not part of the identity, its architecture is."""
        name = upscaler.architecture.describe()
        return VideoModel(name, None, upscaler.architecture, {"upscaler": name}, upscaler)

    @staticmethod
    def opened(located: LocatedModel, opened: OpenedModel) -> VideoModel:
        """Use a model by its name; `opened` is what it stands for."""
        identity = {
            source.name: [sha256_of(source.path), source.share] for source in opened.sources
        }
        if opened.name != located.name:  # A spare for one that could not be downloaded.
            from realesr_cli.weights.locate import locate

            located = locate(opened.name)
        return VideoModel(opened.name, located, opened.architecture, identity)


def upscale_video(
    source: str | Path,
    target: str | Path,
    *,
    model: str | Path | Upscaler = "photo",
    scale: float | None = None,
    settings: VideoSettings = VideoSettings(),
    upscale: UpscaleSettings = UpscaleSettings(),
    engine: EngineSettings = EngineSettings(),
    progress: Progress = no_progress,
    stop_requested: StopRequested = never,
) -> VideoReport:
    """Enlarge a film or an animation and copy everything else of it.

    `model` is a name, a file, the folder of a training run or an `Upscaler`; `scale` is output
    over input size, by default the model's own. `engine.device` may list several devices, as
    "cuda:0,cuda:1": each gets a process, so the calling script needs `if __name__ == "__main__"`.
    `progress` counts frames. An interrupted call is continued by the next one of the same
    arguments, with the same result.

    Raises VideoError and ConfigError before anything is written; JobChangedError, WriteError,
    DamagedVideoError and OutOfMemoryError; CancelledError when `stop_requested()` turns true.
    """
    if scale is not None:
        upscale = dataclasses.replace(upscale, scale=scale)
    if isinstance(model, Upscaler):
        chosen = VideoModel.of(model)
    else:
        chosen = open_video_model(str(model))
    plan = make_plan(Path(source), Path(target), chosen.architecture.scale, settings, upscale)
    return run_plan(plan, chosen, engine, progress=progress, stop_requested=stop_requested)


def open_video_model(
    model: str, *, scale: float | None = None, offline: bool | None = None
) -> VideoModel:
    """Find and, where needed, download a model."""
    from realesr_cli.weights.load import open_model
    from realesr_cli.weights.locate import locate

    located = locate(model, scale=scale)
    return VideoModel.opened(located, open_model(located, offline=offline))


def run_plan(
    plan: VideoPlan,
    model: VideoModel,
    engine: EngineSettings = EngineSettings(),
    *,
    progress: Progress = no_progress,
    stop_requested: StopRequested = never,
) -> VideoReport:
    """Do what is left of a plan, write the result, and remove the job folder."""
    began = time.perf_counter()
    devices = choose_devices(engine, plan.settings.workers)
    engine = dataclasses.replace(engine, device=devices[0])
    remove_stale_files(plan.target.parent)
    resolved = resolve_engine(plan, model, engine)
    job = VideoJob(
        plan.job_folder, _fingerprint(plan, model, engine, resolved), resume=plan.settings.resume
    )
    try:
        report = _finished_before(plan, job)
        if report is None:
            kept = len(job.done)
            tick = _count_frames(plan, job, progress)
            if len(devices) == 1:
                upscaler = model.upscaler
                if upscaler is None:
                    assert model.located is not None
                    upscaler = processes.open_upscaler((model.located,), resolved)
                processes.run_here(plan, upscaler, job, tick, stop_requested)
            else:
                if model.located is None:
                    raise ConfigError("several workers need the name of a model, got an Upscaler")
                tasks = [
                    processes.WorkerTask(plan, (model.located,), one)
                    for one in processes.share_threads(resolved, devices)
                ]
                processes.run_in_processes(tasks, job, tick, stop_requested)
            report = _write_result(plan, job, model, (began, kept), stop_requested)
        write_report(report, plan.target)
        if not plan.settings.keep_job:
            job.remove()
        return report
    except VideoError:
        if not job.done:  # Nothing to continue from, and no way to.
            job.remove()
        raise
    finally:
        job.close()


def choose_devices(engine: EngineSettings, count: int | None) -> tuple[str, ...]:
    """Return the device of each worker; more workers than devices share them in turn."""
    devices = parse_devices(engine.device)
    if len({name.partition(":")[0] for name in devices}) > 1:
        raise ConfigError(
            f"device = {engine.device!r}: expected devices of one kind, whose results are the same"
        )
    if count is None:
        return devices
    if count > 1 and devices == ("auto",):
        found = policies.machine_info().gpus
        devices = tuple(gpu.device for gpu in found) or ("cpu",)
    return tuple(devices[i % len(devices)] for i in range(count))


def resolve_engine(plan: VideoPlan, model: VideoModel, engine: EngineSettings) -> EngineSettings:
    """Replace `auto` by what it stands for here, so that all workers and later runs do the same."""
    if model.upscaler is not None:
        return engine
    policy = policies.choose(policies.machine_info(), engine, model.architecture)
    tile = policy.tile
    pixels = plan.source.width * plan.source.height
    if engine.tile == "auto" and pixels <= (tile + 2 * WHOLE_MARGIN) ** 2:
        tile = 0
    overlap = "auto" if policy.overlap is None else policy.overlap
    found = {"device": policy.device, "precision": policy.precision, "backend": policy.backend}
    return with_values(engine, {**found, "tile": tile, "batch": policy.batch, "overlap": overlap})


def _fingerprint(
    plan: VideoPlan, model: VideoModel, engine: EngineSettings, resolved: EngineSettings
) -> dict[str, Any]:
    """Return everything that decides the bits of the chunks."""
    settings = to_plain(plan.settings)
    asked = to_plain(dataclasses.replace(engine, device=resolved.device.partition(":")[0]))
    for name in ("threads", "memory"):
        asked.pop(name)
    versions = {"realesr-cli": __version__, "torch": metadata.version("torch")}
    if plan.spec is not None:
        versions["av"] = metadata.version("av")
    return {
        "source": {"sha256": plan.source.index.digest, "frames": len(plan.source.index)},
        "settings": {key: settings[key] for key in settings if key not in _FREE_SETTINGS},
        "chunks": [list(span) for span in plan.chunks],
        "upscale": to_plain(plan.upscale),
        "model": dict(model.identity),
        "engine": asked,
        "encoder": None if plan.spec is None else _encoder_to_plain(plan),
        "color": dataclasses.asdict(plan.source.color),
        "versions": versions,
    }


def _encoder_to_plain(plan: VideoPlan) -> dict[str, Any]:
    assert plan.spec is not None
    plain = {key: str(value) for key, value in vars(plan.spec).items() if key != "color"}
    return {**plain, "options": dict(plan.spec.options)}


def _count_frames(plan: VideoPlan, job: VideoJob, progress: Progress) -> Callable[[], None]:
    done = sum(
        stop - start for number, (start, stop) in enumerate(plan.chunks) if number in job.done
    )
    progress(done, plan.count)

    def tick() -> None:
        nonlocal done
        done += 1
        progress(done, plan.count)

    return tick


def _finished_before(plan: VideoPlan, job: VideoJob) -> VideoReport | None:
    """Return the report of a run that was killed between the result's name and its own end."""
    if job.result is None or not plan.target.is_file():
        return None
    if sha256_of(plan.target) != job.result["sha256"]:
        return None
    return report_from_plain(job.result["report"])


def _write_result(
    plan: VideoPlan,
    job: VideoJob,
    model: VideoModel,
    run: tuple[float, int],
    stop_requested: StopRequested,
) -> VideoReport:
    """Assemble the chunks into the target, which gets its name when it is complete."""
    report = sum_up(plan, job, model.name, run[1])
    if report.concealed > MOST_CONCEALED * report.frames_in:
        raise DamagedVideoError(
            f"{plan.source.path}: {report.concealed} of {report.frames_in} frames cannot be decoded"
        )
    segments = [job.segment(number) for number in range(len(plan.chunks))]
    with write_errors(plan.target), atomic_path(plan.target) as path:
        if plan.spec is None:
            shape = (plan.frames, (plan.width, plan.height))
            write_animation(path, plan.container, segments, plan.source, shape)
        else:
            delay = max(chunk.delay for chunk in job.done.values())
            write_film(path, plan, segments, delay, stop_requested)
        report = dataclasses.replace(
            report, bytes=path.stat().st_size, seconds=round(time.perf_counter() - run[0], 3)
        )
        job.commit_result(sha256_of(path), report_to_plain(report))
    return report
