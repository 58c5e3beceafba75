"""What a video file holds: its frames' timestamps, color tags, HDR metadata, other streams."""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realesr_cli.errors import VideoError
from realesr_cli.text import format_seconds
from realesr_cli.video.color import (
    HDR_TRANSFERS,
    ColorTags,
    HdrMetadata,
    read_color,
    read_hdr,
)
from realesr_cli.video.library import reading

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

    from realesr_cli.video.settings import VideoSettings

_SAMPLE = 8
"""Frames that are decoded to see how the file is tagged and whether its timestamps are right."""


@dataclass(frozen=True)
class FrameIndex:
    """When each frame is shown, in display order, in units of `time_base` seconds."""

    pts: tuple[int, ...]
    durations: tuple[int, ...]
    time_base: Fraction
    keys: tuple[int, ...] = (0,)
    """Numbers of the frames at which decoding can begin."""
    digest: str = ""
    """SHA-256 of the compressed frames."""
    by_order: bool = False
    """The timestamps of the file are missing or repeated, and replaced by these, in order."""

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def variable(self) -> bool:
        """Whether the frame rate varies, beyond the rounding of timestamps."""
        steps = [b - a for a, b in pairwise(self.pts)]
        return bool(steps) and max(steps) - min(steps) > 1

    @property
    def seconds(self) -> float:
        """From the first frame's beginning to the last one's end."""
        return float((self.pts[-1] + self.durations[-1] - self.pts[0]) * self.time_base)

    def key_before(self, number: int) -> int:
        """Return the last frame at or before `number` at which decoding can begin."""
        return self.keys[max(0, bisect_right(self.keys, number) - 1)]


@dataclass(frozen=True)
class StreamInfo:
    """A stream besides the film's own, and what becomes of it."""

    index: int
    type: str
    codec: str
    language: str = ""
    action: str = "copied"
    """copied, or dropped and why."""

    @property
    def copied(self) -> bool:
        """Whether the stream is in the result."""
        return self.action.startswith("copied")

    def describe(self) -> str:
        """Return `stream 2, audio (aac, eng)`."""
        words = ", ".join(word for word in (self.codec, self.language) if word)
        return f"stream {self.index}, {self.type} ({words})"


@dataclass(frozen=True)
class VideoSource:
    """A film or an animation: how its frames are read, and what else is to be kept of it."""

    path: Path
    kind: str
    """film, read by PyAV, or animation, read by Pillow."""
    format: str
    width: int
    height: int
    pixel_format: str
    bits: int
    index: FrameIndex
    color: ColorTags
    rate: Fraction = Fraction(25)
    stream: int = 0
    codec: str = ""
    chroma: tuple[int, int] = (1, 1)
    """Width and height of luma over those of chroma."""
    alpha: bool = False
    rgb: bool = False
    sar: Fraction = Fraction(1)
    """Aspect ratio of a pixel."""
    rotation: int = 0
    hdr: HdrMetadata | None = None
    interlaced: bool = False
    truncated: bool = False
    others: tuple[StreamInfo, ...] = ()
    chapters: int = 0
    loop: int | None = None
    """Plays of an animation; 0 is without end."""
    notes: tuple[str, ...] = field(default=(), compare=False)


def open_film(path: Path, settings: VideoSettings) -> VideoSource:
    """Read everything of a film but its pixels. Raises VideoError for what is no video."""
    import av

    if not os.access(path, os.R_OK):
        raise VideoError(
            f"{path}: {'no permission to read it' if path.exists() else 'no such file'}"
        )
    with reading(path), av.open(str(path), metadata_errors="ignore") as container:
        stream = _find_film(container, path)
        index, end = _read_index(container, stream)
        if not len(index):
            raise VideoError(f"{path}: its video stream has no frames")
        frames = _read_sample(path, stream.index)
        if not frames:
            raise VideoError(f"{path}: none of its frames can be decoded")
        source = replace(
            _describe_film(path, container.format.name, stream, frames[0], index),
            others=tuple(_describe(other) for other in container.streams if other is not stream),
            chapters=len(container.chapters()),
            interlaced=any(frame.interlaced_frame for frame in frames),
        )
        missing = (container.duration or 0) / 1e6 - end
    notes = _notes_on(source, frames[0], settings)
    shown = [frame.pts for frame in frames]
    if index.by_order or (source.interlaced and shown != list(index.pts[: len(shown)])):
        index = _index_by_decoding(source, index)
        if index.by_order:
            notes.append("timestamps are missing or repeated; frames are timed by their order")
    truncated = missing > max(1.0, 0.02 * end)
    if truncated:
        notes.append(f"the file ends {format_seconds(missing)} before its declared end")
    try:
        color = read_color(frames[0], settings, rgb=source.rgb)
    except VideoError as error:
        raise error.prefixed(str(path)) from None
    if settings.hdr == "refuse" and color.transfer in HDR_TRANSFERS:
        raise VideoError(f"{path}: is HDR ({HDR_TRANSFERS[color.transfer]}), which is refused")
    return replace(source, index=index, color=color, truncated=truncated, notes=tuple(notes))


def _find_film(container: InputContainer, path: Path) -> VideoStream:
    import av

    name = container.format.name
    if "image2" in name or name.endswith("_pipe") or name in ("gif", "apng"):
        raise VideoError(f"{path}: is an image, not a video", advice="image-not-video")
    film = container.streams.best("video")
    cover = av.stream.Disposition.attached_pic
    if film is None or film.disposition & cover:
        found = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
        raise VideoError(f"{path}: has no video stream (found: {found})")
    assert isinstance(film, av.VideoStream)
    if film.codec_context is None:
        raise VideoError(f"{path}: its video codec is not known to this FFmpeg")
    return film


def _read_index(container: InputContainer, stream: VideoStream) -> tuple[FrameIndex, float]:
    """Return the index of the film, and the second at which the last packet of all ends."""
    digest, rows, end = hashlib.sha256(), [], 0.0
    base = stream.time_base or Fraction(1, 90000)
    for packet in container.demux():
        if not packet.size or packet.is_discard:
            continue
        if packet.pts is not None and packet.time_base:
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if packet.stream_index == stream.index:
            digest.update(packet)
            rows.append((packet.pts, packet.duration or 0, packet.is_keyframe))
    pts = [row[0] for row in rows]
    if None in pts or len(set(pts)) < len(pts):
        return FrameIndex((0,) * len(rows), (), base, digest=digest.hexdigest(), by_order=True), end
    rows.sort(key=lambda row: row[0] or 0)
    keys = tuple(i for i, row in enumerate(rows) if row[2]) or (0,)
    times = tuple(row[0] or 0 for row in rows)
    durations = _fill_durations(times, [row[1] for row in rows])
    return FrameIndex(times, durations, base, keys, digest.hexdigest()), end


def _fill_durations(pts: tuple[int, ...], known: list[int]) -> tuple[int, ...]:
    """Return the durations of frames; where unknown, until the next frame."""
    steps = [b - a for a, b in pairwise(pts)]
    last = sorted(steps)[len(steps) // 2] if steps else 1
    return tuple(k or s for k, s in zip(known, [*steps, last], strict=True))


def _index_by_decoding(source: VideoSource, index: FrameIndex) -> FrameIndex:
    """Return the index as the decoder shows it: fields paired, missing timestamps filled in."""
    import av

    path = source.path
    with reading(path), av.open(str(path), metadata_errors="ignore") as container:
        film = container.streams[source.stream]
        assert isinstance(film, av.VideoStream)
        film.thread_type = "AUTO"
        pts = [frame.pts for frame in decode(container, film)]
    step = max(1, round(1 / (source.rate * index.time_base)))
    times: list[int] = []
    for value in pts:
        least = times[-1] + 1 if times else None
        guess = times[-1] + step if times else 0
        times.append(guess if value is None or (least and value < least) else value)
    by_order = times != pts
    filled = _fill_durations(tuple(times), [0] * len(times))
    keys = index.keys
    if not by_order and not index.by_order:
        shown = {value: number for number, value in enumerate(times)}
        keys = tuple(shown[index.pts[k]] for k in index.keys if index.pts[k] in shown) or (0,)
    return replace(index, pts=tuple(times), durations=filled, keys=keys, by_order=by_order)


def decode(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    """Decode what can be decoded: damaged packets are passed over."""
    import av

    damage = (av.error.InvalidDataError, av.error.EOFError, av.error.ExternalError)
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except damage:
            packet = None
        try:
            if packet is None:  # The end came as an error: what the decoder still holds.
                yield from stream.codec_context.decode(None)
                return
            yield from stream.decode(packet)
        except damage:
            if packet is None:
                return
        if packet is not None and not packet.size:
            return


def _read_sample(path: Path, stream: int) -> list[av.VideoFrame]:
    import av

    with reading(path), av.open(str(path), metadata_errors="ignore") as container:
        film = container.streams[stream]
        assert isinstance(film, av.VideoStream)
        frames = []
        for frame in decode(container, film):
            frames.append(frame)
            if len(frames) == _SAMPLE:
                break
        return frames


def _describe(stream: Any) -> StreamInfo:
    context = stream.codec_context
    codec = context.name if context is not None else str(getattr(stream, "name", "") or "")
    return StreamInfo(stream.index, stream.type, codec, stream.metadata.get("language", ""))


def _describe_film(
    path: Path, format: str, stream: VideoStream, first: av.VideoFrame, index: FrameIndex
) -> VideoSource:
    components = first.format.components
    chroma = (1, 1)
    if len(components) > 2 and not first.format.is_rgb:
        chroma = (-(-first.width // components[1].width), -(-first.height // components[1].height))
    return VideoSource(
        path=path, kind="film", format=format, width=first.width, height=first.height,
        pixel_format=first.format.name, bits=max(c.bits for c in components), index=index,
        color=ColorTags(1, 1, 1, 1),
        rate=Fraction(stream.average_rate or stream.guessed_rate or 25),
        stream=stream.index, codec=stream.codec_context.name, chroma=chroma,
        alpha=any(c.is_alpha for c in components),
        rgb=first.format.is_rgb or first.format.has_palette,
        sar=Fraction(stream.sample_aspect_ratio or 1), rotation=first.rotation,
        hdr=read_hdr(first),
    )  # fmt: skip


def _notes_on(source: VideoSource, first: av.VideoFrame, settings: VideoSettings) -> list[str]:
    import av.sidedata.sidedata as sidedata

    notes = []
    items: Any = first.side_data
    types = {item.type for item in items}
    if types & {sidedata.Type.DOVI_METADATA, sidedata.Type.DOVI_RPU_BUFFER}:
        notes.append("Dolby Vision metadata is not carried over")
    if sidedata.Type.DYNAMIC_HDR_PLUS in types:
        notes.append("HDR10+ metadata is not carried over")
    if source.interlaced and settings.deinterlace == "off":
        notes.append("frames are flagged as interlaced; the network expects progressive frames")
    return notes
