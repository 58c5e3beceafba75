"""`realesr video`: a film or an animation upscaled, everything else of it copied."""

from __future__ import annotations

import json
import shlex
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from realesr_cli.cli.options import (
    ModelType,
    json_option,
    offline_option,
    quiet_option,
    settings_from,
    settings_options,
)
from realesr_cli.cli.terminal import (
    ProgressBar,
    interruptible,
    print_indented_json,
    say_warning,
)
from realesr_cli.cli.upscale_request import FitType, find_model, open_network, open_stand_in
from realesr_cli.engine.settings import EngineSettings, UpscaleSettings
from realesr_cli.errors import CancelledError, ConfigError
from realesr_cli.settings import check, option
from realesr_cli.text import format_bytes, format_seconds
from realesr_cli.video.settings import VideoSettings

if TYPE_CHECKING:
    from realesr_cli.video.report import VideoReport
    from realesr_cli.video.video_plan import VideoPlan
    from realesr_cli.weights.locate import LocatedModel

_DEFAULT_MODEL = "photo"
_TIMED_SIDE = 160
"""Side in pixels of the part of a frame that is timed for an estimate."""

_STOPPING = "stopping after the current tile; repeat the signal to stop at once"
_SIZES = ("scale", "width", "height", "max_side")


@dataclass(frozen=True)
class VideoRunOptions:
    """Options of the command besides the settings of a video."""

    output: Path | None = option(None, help="Output: .mkv, .mp4, .mov, .webm, .gif, .png or .webp.")
    denoise: float | None = option(
        None,
        help="Denoising strength: 1 removes most noise, 0 keeps it (realesr-general-x4v3 only).",
        low=0,
        high=1,
    )
    dry_run: bool = option(False, help="Print the plan and an estimate of the time, and end.")

    def __post_init__(self) -> None:
        check(self)


@click.command("video")
@click.argument("source", type=click.Path(path_type=Path))
@settings_options(VideoRunOptions, only={"output"}, short={"output": ("-o",)})
@settings_options(UpscaleSettings, only=set(_SIZES), short={"scale": ("-s",)})
@click.option(
    "--fit", type=FitType(), help="Largest output within WIDTHxHEIGHT that keeps the aspect ratio."
)
@click.option(
    "-m",
    "--model",
    type=ModelType(),
    default=_DEFAULT_MODEL,
    show_default=True,
    metavar="NAME|PATH",
    help="Model name, .pth or .safetensors file, or training run folder.",
)
@settings_options(UpscaleSettings, only={"tta", "strength", "color_fix"}, short={"tta": ("-x",)})
@settings_options(VideoRunOptions, only={"denoise"})
@settings_options(VideoSettings)
@settings_options(EngineSettings, short={"tile": ("-t",)})
@settings_options(VideoRunOptions, only={"dry_run"})
@offline_option
@json_option
@quiet_option
@click.pass_context
def video_command(
    ctx: click.Context,
    source: Path,
    fit: tuple[int, int] | None,
    model: str,
    offline: bool | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Upscale a film or an animated GIF, PNG or WebP.

    Audio, subtitles, chapters, attachments, timestamps, color tags and metadata are copied. The
    work is done in chunks: after an interruption, even by kill -9, the same command continues.
    Films need realesr-cli[video]; animations do not.

    \b
    realesr video in.mkv -o out.mkv -m animevideo -s 2
    realesr video in.mp4 -o out.mp4 --codec x265 --crf 20
    realesr video in.mkv -o sample.mkv --start 60 --frames 100
    realesr video in.mkv -o out.mkv --dry-run
    """
    run = settings_from(ctx, VideoRunOptions)
    if run.output is None:
        raise ConfigError("no output: name a file with -o, as in -o out.mkv")
    upscale = settings_from(ctx, UpscaleSettings)
    if fit is not None:
        upscale = replace(upscale, fit=fit)
    settings, engine = settings_from(ctx, VideoSettings), settings_from(ctx, EngineSettings)
    located = find_model(model, scale=upscale.scale, denoise=run.denoise)
    request = _VideoRequest(source, run.output, located, offline, as_json, quiet)
    if run.dry_run:
        return _dry_run(request, settings, upscale, engine)
    return _upscale(request, settings, upscale, engine)


@dataclass(frozen=True)
class _VideoRequest:
    """A call of the command."""

    source: Path
    target: Path
    located: LocatedModel
    offline: bool | None
    json: bool
    quiet: bool


def _upscale(
    request: _VideoRequest,
    settings: VideoSettings,
    upscale: UpscaleSettings,
    engine: EngineSettings,
) -> int:
    from realesr_cli.video.report import report_to_plain
    from realesr_cli.video.upscale_video import VideoModel, run_plan
    from realesr_cli.video.video_plan import make_plan

    opened, known = None, request.located.known_architecture
    if known is None:
        opened = open_network(request.located, offline=request.offline, quiet=request.quiet)
        known = opened.architecture
    plan = make_plan(request.source, request.target, known.scale, settings, upscale)
    if opened is None:  # A refused video has downloaded nothing.
        opened = open_network(request.located, offline=request.offline, quiet=request.quiet)
        if opened.architecture.scale != known.scale:
            scale = opened.architecture.scale
            plan = make_plan(request.source, request.target, scale, settings, upscale)
    if not request.quiet:
        for note in plan.notes:
            say_warning(note)
    progress = _VideoProgress(plan, enabled=not request.quiet)
    with progress.bar, interruptible("" if request.quiet else _STOPPING) as interrupt:
        try:
            report = run_plan(
                plan,
                VideoModel.opened(request.located, opened),
                engine,
                progress=progress,
                stop_requested=interrupt.stop_requested,
            )
        except CancelledError:
            progress.bar.close()
            if not request.quiet:
                command = shlex.join(["realesr", *sys.argv[1:]])
                click.echo(f"interrupted; the same command continues:\n  {command}", err=True)
            return interrupt.exit_code
    if request.json:
        print_indented_json({**report_to_plain(report), "exit_code": report.exit_code})
    elif not request.quiet:
        click.echo(_format_report(report, plan), err=True)
    return report.exit_code


class _VideoProgress:
    """The progress bar in frames, with a preview of the size of the result."""

    def __init__(self, plan: VideoPlan, *, enabled: bool) -> None:
        self.bar = ProgressBar(plan.source.path.name, unit="frame", enabled=enabled)
        self._plan = plan
        self._seen: set[str] = set()

    def __call__(self, done: int, total: int) -> None:
        self.bar(done, total)
        if self.bar.enabled and done % 50 == 0:
            self._preview()

    def _preview(self) -> None:
        """Extrapolate from the chunks that are done."""
        sizes = {path.name: path.stat().st_size for path in self._plan.job_folder.glob("*.chunk")}
        if sizes.keys() == self._seen:
            return
        self._seen = set(sizes)
        spans = [self._plan.chunks[int(name.partition(".")[0])] for name in sizes]
        frames = sum(stop - start for start, stop in spans)
        expected = sum(sizes.values()) * self._plan.count // max(1, frames)
        self.bar.relabel(f"{self._plan.source.path.name} (about {format_bytes(expected)})")


def _format_report(report: VideoReport, plan: VideoPlan) -> str:
    from realesr_cli.video.report import summarize_streams

    source, seconds = plan.source, max(report.seconds, 1e-9)
    parts = [
        f"{report.source} -> {report.target}  {source.width}x{source.height} -> "
        f"{plan.width}x{plan.height}",
        f"{report.frames_out} frames",
        format_seconds(report.seconds),
        f"{report.computed / seconds:.2f} fps" if not report.chunks_resumed else "",
        format_bytes(report.bytes),
        f"{report.repeated} repeated" if report.repeated else "",
        summarize_streams(report.streams),
    ]
    lines = [", ".join(part for part in parts if part)]
    if report.concealed or report.corrupt:
        lines.append(
            f"the source is damaged: {report.concealed} frames replaced by a neighbor, "
            f"{report.corrupt} decoded with damage"
        )
    return "\n".join(lines)


def _dry_run(
    request: _VideoRequest,
    settings: VideoSettings,
    upscale: UpscaleSettings,
    engine: EngineSettings,
) -> int:
    from realesr_cli.engine.upscaler import build_upscaler
    from realesr_cli.video.upscale_video import choose_devices
    from realesr_cli.video.video_plan import make_plan

    known = request.located.known_architecture
    opened = None
    if known is None:
        opened = open_stand_in(request.located, offline=request.offline)
        known = opened.architecture
    plan = make_plan(request.source, request.target, known.scale, settings, upscale)
    devices = choose_devices(engine, settings.workers)
    opened = opened or open_stand_in(request.located, offline=request.offline)
    upscaler = build_upscaler([opened], replace(engine, device=devices[0]))
    gpus = 1 if upscaler.policy.device == "cpu" else len(set(devices))
    seconds = _time_frame(plan, upscaler) * plan.count / gpus
    plain = {**plan.to_plain(), "model": request.located.name, "estimated_seconds": round(seconds)}
    if request.json:
        click.echo(json.dumps(plain, ensure_ascii=False, indent=2))
        return 0
    for line in _format_plan(plan, plain):
        click.echo(line)
    return 0


def _time_frame(plan: VideoPlan, upscaler: Any) -> float:
    """Return the seconds of a frame, extrapolated from a part of one."""
    import numpy as np

    from realesr_cli.engine.estimate import ImageShape
    from realesr_cli.image.types import Image

    height, width = (min(_TIMED_SIDE, side) for side in (plan.source.height, plan.source.width))
    part = Image(np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8))
    scale = plan.height / plan.source.height
    sample = replace(plan.upscale, width=None, height=None, scale=scale)
    upscaler(part, sample)  # Starts what starts only once.
    began = time.perf_counter()
    upscaler(part, sample)
    spent = time.perf_counter() - began
    shape = ImageShape(
        plan.source.height, plan.source.width, bits=16 if plan.source.bits > 8 else 8
    )
    whole = upscaler.estimate(shape, plan.upscale).network_pixels
    return float(spent * whole / upscaler.estimate(ImageShape.of(part), sample).network_pixels)


def _format_plan(plan: VideoPlan, plain: dict[str, Any]) -> list[str]:
    source, index = plan.source, plan.source.index
    rate = "variable frame rate" if index.variable else f"{float(source.rate):g} fps"
    lines = [
        f"{source.path}: {source.format}, {source.codec} {source.width}x{source.height} "
        f"{source.pixel_format}, {source.color.describe()}, {rate}, {len(index)} frames, "
        f"{format_seconds(index.seconds)}",
        f"{plan.target}: {plan.container}, {plain['encoder'] or plan.container} "
        f"{plan.width}x{plan.height} {plain['out_pixel_format'] or ''}".rstrip()
        + f", {plan.count} frames in {len(plan.chunks)} chunks",
    ]
    lines += [f"  {stream.describe()}: {stream.action}" for stream in plan.streams]
    if source.chapters:
        lines.append(f"  {source.chapters} chapters: copied")
    lines += [f"  note: {note}" for note in plan.notes]
    lines.append(
        f"{plain['model']}: about {format_seconds(plain['estimated_seconds'])}; disk about "
        f"{format_bytes(plan.disk_bytes)} ({format_bytes(plain['free_bytes'])} free)"
    )
    return lines
