"""The plan of a video: frames, chunks, encoder, copied streams; everything is refused here."""

from __future__ import annotations

import io
import os
import shutil
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from realesr_cli.atomic import check_writable
from realesr_cli.engine.settings import UpscaleSettings, output_size
from realesr_cli.errors import VideoError
from realesr_cli.text import format_bytes, format_names
from realesr_cli.video.animations import ANIMATIONS, find_animation, open_animation
from realesr_cli.video.color import HDR_TRANSFERS
from realesr_cli.video.encoder import EncoderSpec, choose_encoder, needs_even, try_encoder
from realesr_cli.video.frames import ReadOptions, Span
from realesr_cli.video.journal import is_result
from realesr_cli.video.library import reading, require_av
from realesr_cli.video.settings import VideoSettings
from realesr_cli.video.streams import FrameIndex, StreamInfo, VideoSource, open_film

CONTAINERS = {
    ".mkv": "matroska", ".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".webm": "webm",
    ".gif": "gif", ".png": "apng", ".apng": "apng", ".webp": "webp",
}  # fmt: skip
"""What a result can be written as, by its extension."""

JOB_SUFFIX = ".realesr-job"


@dataclass(frozen=True)
class VideoPlan:
    """What will be done, complete and checked; nothing has been written yet."""

    source: VideoSource
    target: Path
    container: str
    frames: Span
    """The frames of the source that are done."""
    chunks: tuple[Span, ...]
    width: int
    height: int
    spec: EncoderSpec | None
    """None for an animation."""
    streams: tuple[StreamInfo, ...]
    read: ReadOptions
    upscale: UpscaleSettings
    settings: VideoSettings
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Number of frames."""
        return self.frames[1] - self.frames[0]

    @property
    def trimmed(self) -> bool:
        """Whether only a part of the source is done; times then begin with it."""
        return self.frames != (0, len(self.source.index))

    @property
    def job_folder(self) -> Path:
        """Where finished chunks wait for the end."""
        return self.settings.job_dir or self.target.with_name(self.target.name + JOB_SUFFIX)

    @property
    def disk_bytes(self) -> int:
        """A guess of the disk space: chunks and result, at the source's quality."""
        area = self.width * self.height / (self.source.width * self.source.height)
        part = self.count / len(self.source.index)
        return int(2 * self.source.path.stat().st_size * part * area**0.75)

    def to_plain(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        source, spec = self.source, self.spec
        index = source.index
        return {
            "input": str(source.path),
            "output": str(self.target),
            "format": source.format,
            "codec": source.codec,
            "frames": self.count,
            "seconds": round(index.seconds * self.count / len(index), 3),
            "rate": float(source.rate),
            "variable_rate": index.variable,
            "width": source.width,
            "height": source.height,
            "out_width": self.width,
            "out_height": self.height,
            "pixel_format": source.pixel_format,
            "bits": source.bits,
            "color": source.color.describe(),
            "hdr": HDR_TRANSFERS.get(source.color.transfer),
            "rotation": source.rotation,
            "pixel_aspect_ratio": str(source.sar),
            "interlaced": source.interlaced,
            "container": self.container,
            "encoder": None if spec is None else spec.encoder,
            "out_pixel_format": None if spec is None else spec.pix_fmt,
            "encoder_options": {} if spec is None else dict(spec.options),
            "chunks": len(self.chunks),
            "chapters": source.chapters,
            "streams": [vars(stream) for stream in self.streams],
            "disk_bytes": self.disk_bytes,
            "free_bytes": _free_bytes(self.target),
            "job_folder": str(self.job_folder),
            "notes": list(self.notes),
        }


def make_plan(
    source: Path, target: Path, scale: int, settings: VideoSettings, upscale: UpscaleSettings
) -> VideoPlan:
    """Look at the source, decide everything and refuse what cannot be done.

    `scale` is the network's own factor. Raises VideoError, and ConfigError for a target that
    cannot be written.
    """
    container = _check_paths(source, target, settings)
    animated = find_animation(source)
    if animated is None or container not in ANIMATIONS:
        require_av()
    film = open_film(source, settings) if animated is None else open_animation(source, animated)
    height, width = output_size(upscale, (film.height, film.width), scale)
    notes = list(film.notes)
    spec = None
    if container not in ANIMATIONS:
        spec = choose_encoder(film, (height, width), container, settings)
        by = needs_even(spec.pix_fmt)
        even = tuple(
            -(-side // step) * step for side, step in zip((height, width), by, strict=True)
        )
        if even != (height, width):
            notes.append(
                f"{width}x{height} becomes {even[1]}x{even[0]}: {spec.pix_fmt} needs even sizes"
            )
            height, width = even
            spec = replace(spec, height=height, width=width)
        try_encoder(spec, container)
    if film.alpha and not (spec is None or spec.alpha):
        notes.append("transparency is dropped")
    frames = _choose_frames(film.index, settings)
    streams = _choose_streams(film, container, settings)
    notes += [f"{stream.describe()}: {stream.action}" for stream in streams if not stream.copied]
    plan = VideoPlan(
        source=film, target=target, container=container, frames=frames,
        chunks=tuple(_cut(film.index, frames, settings.chunk_seconds)),
        width=width, height=height, spec=spec, streams=streams,
        read=ReadOptions(
            alpha=film.alpha and (spec is None or spec.alpha),
            planes=settings.dedupe == "near", deinterlace=settings.deinterlace,
        ),
        upscale=replace(
            upscale, scale=None, fit=None, max_side=None, width=width, height=height
        ),
        settings=settings,
    )  # fmt: skip
    free = _free_bytes(target)
    if plan.disk_bytes > free:
        notes.append(
            f"disk space may not suffice: about {format_bytes(plan.disk_bytes)} needed, "
            f"{format_bytes(free)} free"
        )
    return replace(plan, notes=tuple(notes))


def _check_paths(source: Path, target: Path, settings: VideoSettings) -> str:
    """Return the container of the target. Raises for a target that must not be written."""
    container = CONTAINERS.get(target.suffix.lower())
    if container is None:
        raise VideoError(
            f"{target}: expected a name that ends in {format_names(CONTAINERS, limit=20)}",
            advice="choose-output",
        )
    if target.is_dir():
        raise VideoError(f"{target}: is a folder; name a file in it")
    if source.is_dir():
        raise VideoError(f"{source}: is a folder, not a video")
    if not source.exists():
        raise VideoError(f"{source}: no such file")
    if source.stat().st_size == 0:
        raise VideoError(f"{source}: is empty")
    if target.exists():
        if source.samefile(target):
            raise VideoError(f"{target}: is the input", advice="choose-output")
        job = settings.job_dir or target.with_name(target.name + JOB_SUFFIX)
        if not settings.overwrite and not is_result(job, target):
            raise VideoError(f"{target}: already exists", advice="overwrite-or-rename")
    check_writable([target, settings.job_dir])
    return container


def _choose_frames(index: FrameIndex, settings: VideoSettings) -> Span:
    """Return the frames between start and end, at most as many as requested."""
    begin = index.pts[0]
    first = bisect_left(index.pts, begin + settings.start / index.time_base)
    last = len(index)
    if settings.end is not None:
        last = bisect_left(index.pts, begin + settings.end / index.time_base)
    if settings.frames is not None:
        last = min(last, first + settings.frames)
    if first >= last:
        raise VideoError(
            f"no frames from {settings.start:g} s on: the video has {index.seconds:.3f} s"
        )
    return first, last


def _cut(index: FrameIndex, frames: Span, seconds: float) -> Iterator[Span]:
    """Yield chunks of about so many seconds, at key frames where these are near.

    A chunk that begins at a key frame needs no frame before it decoded.
    """
    start, length = frames[0], int(seconds / index.time_base)
    while start < frames[1]:
        stop = max(start + 1, bisect_left(index.pts, index.pts[start] + length))
        reach = (stop - start) // 3
        low = bisect_left(index.keys, stop - reach)
        near = [key for key in index.keys[low : low + reach + 1] if key <= stop + reach]
        if near and reach:
            stop = min(near, key=lambda key: abs(key - stop))
        stop = min(stop, frames[1])
        yield start, stop
        start = stop


def _choose_streams(
    film: VideoSource, container: str, settings: VideoSettings
) -> tuple[StreamInfo, ...]:
    """Decide about each stream but the film's own. Raises VideoError for one that does not fit."""
    chosen, unfit = [], []
    for stream in film.others:
        action = "copied"
        if container in ANIMATIONS:
            action = "dropped, an animation holds images only"
        elif (stream.type == "audio" and not settings.audio) or (
            stream.type == "subtitle" and not settings.subs
        ):
            action = "dropped, not requested"
        elif stream.type == "data":
            action = "dropped, timed data of a format that cannot be copied"
        elif why := _refusal(film, stream, container):
            action = f"dropped, {container} cannot hold it ({why})"
            unfit.append(stream)
        chosen.append(replace(stream, action=action))
    if unfit and not settings.drop_incompatible:
        names = format_names((stream.describe() for stream in unfit), limit=8)
        raise VideoError(
            f"{film.path}: {container} cannot hold {names}; Matroska (.mkv) can",
            advice="video-streams",
        )
    return tuple(chosen)


def _refusal(film: VideoSource, stream: StreamInfo, container: str) -> str:
    """Return why a container refuses a stream, by writing a header in memory; else nothing."""
    import av

    if container == "matroska" and stream.type == "video":
        return ""  # A cover is written as an attachment.
    if stream.type == "attachment" and container != "matroska":
        return "no attachments"
    with reading(film.path), av.open(str(film.path), metadata_errors="ignore") as source:
        try:
            with av.open(io.BytesIO(), "w", format=container) as memory:
                memory.add_stream_from_template(source.streams[stream.index], opaque=True)
                memory.start_encoding()
        except (av.error.FFmpegError, ValueError) as error:
            return str(getattr(error, "strerror", None) or error)
    return ""


def _free_bytes(target: Path) -> int:
    folder = Path(os.path.abspath(target)).parent
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
