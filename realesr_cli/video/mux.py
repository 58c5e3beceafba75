"""The finished file: the encoded chunks with the source's times, and all that is copied."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realesr_cli.errors import CancelledError, VideoError
from realesr_cli.progress import StopRequested, never
from realesr_cli.video.library import writing

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet

    from realesr_cli.video.video_plan import VideoPlan

_COVER_TYPES = {"mjpeg": ("image/jpeg", "jpg"), "png": ("image/png", "png")}


def write_film(
    path: Path,
    plan: VideoPlan,
    segments: Sequence[Path],
    delay: int,
    stop_requested: StopRequested = never,
) -> int:
    """Write the file and return the number of its frames.

    `delay` is how far decoding times lie before presentation times at least. Raises WriteError,
    VideoError where a chunk does not have its frames, and CancelledError.
    """
    import av

    options = {"movflags": "+faststart"} if plan.container in ("mp4", "mov") else {}
    copied = any(stream.copied for stream in plan.streams) or plan.source.kind == "film"
    source = av.open(str(plan.source.path), metadata_errors="ignore") if copied else None
    try:
        with (
            writing(path),
            av.open(str(segments[0])) as first,
            av.open(str(path), "w", format=plan.container, options=options) as output,
        ):
            film = output.add_stream_from_template(first.streams.video[0], opaque=True)
            film.time_base = plan.source.index.time_base
            covers: list[Packet[Any]] = []
            outputs: dict[int, Any] = {}
            if source is not None:
                outputs = _add_copies(output, source, plan, covers)
                _copy_description(output, source, film, plan)
            for packet in covers:
                output.mux(packet)
            frames = _time_packets(plan, segments, delay, film)
            copies = _read_copies(source, outputs, plan) if source and outputs else iter(())
            count = 0
            for _, _, packet in heapq.merge(frames, copies, key=lambda item: item[:2]):
                if stop_requested():
                    raise CancelledError("cancelled")
                count += packet.stream is film
                output.mux(packet)
    finally:
        if source is not None:
            source.close()
    if count != plan.count:
        raise VideoError(f"the chunks have {count} frames, expected {plan.count}")
    return count


def _add_copies(
    output: OutputContainer, source: InputContainer, plan: VideoPlan, covers: list[Packet[Any]]
) -> dict[int, Any]:
    """Add the copied streams; return them by their number in the source.

    The packets of covers come without times, before all others, and are returned in `covers`.
    """
    outputs: dict[int, Any] = {}
    for info in plan.streams:
        if not info.copied:
            continue
        stream = source.streams[info.index]
        if info.type == "video" and plan.container == "matroska" and _is_cover(stream):
            _attach_cover(output, stream, plan.source.path)
            continue
        copy = output.add_stream_from_template(stream, opaque=True)
        copy.metadata.update(_own_metadata(stream.metadata))
        copy.disposition = stream.disposition
        if _is_cover(stream):
            packet = _read_cover(plan.source.path, info.index)
            packet.pts = packet.dts = 0
            packet.time_base, packet.stream = Fraction(1, 1000), copy
            covers.append(packet)
        elif info.type != "attachment":
            if stream.time_base:
                copy.time_base = stream.time_base
            outputs[info.index] = copy
    return outputs


def _is_cover(stream: Any) -> bool:
    from av.stream import Disposition

    return stream.type == "video" and bool(stream.disposition & Disposition.attached_pic)


def _read_cover(path: Path, index: int) -> Packet[Any]:
    import av

    with av.open(str(path), metadata_errors="ignore") as container:
        for packet in container.demux(container.streams[index]):
            if packet.size:
                return av.Packet(bytes(packet))
    raise VideoError(f"{path}: stream {index} has no image")


def _attach_cover(output: OutputContainer, stream: Any, path: Path) -> None:
    """Matroska holds a cover as an attachment."""
    usual, suffix = _COVER_TYPES.get(stream.codec_context.name, ("image/jpeg", "jpg"))
    name = stream.metadata.get("filename", f"cover.{suffix}")
    kind = stream.metadata.get("mimetype", usual)
    output.add_attachment(name, kind, bytes(_read_cover(path, stream.index)))


def _own_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Leave out what states facts of the old file, and what the container writes itself."""
    stale = ("DURATION", "BPS", "NUMBER_OF_", "_STATISTICS", "ENCODER", "HANDLER_NAME", "VENDOR_ID")
    return {
        key: value
        for key, value in metadata.items()
        if not key.upper().startswith(stale) and key.lower() not in ("major_brand", "minor_version")
    }


def _copy_description(
    output: OutputContainer, source: InputContainer, film: Any, plan: VideoPlan
) -> None:
    """Copy title, language, disposition, chapters and rotation."""
    old = source.streams[plan.source.stream]
    film.metadata.update(_own_metadata(old.metadata))
    film.disposition = old.disposition
    if plan.source.rotation:
        film.set_display_rotation(plan.source.rotation)
    wanted = _own_metadata(source.metadata)
    wanted.pop("compatible_brands", None)
    output.metadata.update(wanted)
    begin, end = _limits(plan)
    chapters: list[Any] = []
    for chapter in source.chapters():
        base = chapter["time_base"] or Fraction(1, 1000)
        low, high = chapter["start"] * base, chapter["end"] * base
        if plan.trimmed:
            if high <= begin or low >= end:
                continue
            low, high = max(low, begin) - begin, min(high, end) - begin
        times = {"start": round(low / base), "end": round(high / base)}
        chapters.append({**chapter, **times, "time_base": base})
    output.set_chapters(chapters)


def _limits(plan: VideoPlan) -> tuple[Fraction, Fraction]:
    """Return the seconds at which the frames of the plan begin and end."""
    index, (first, last) = plan.source.index, plan.frames
    end = index.pts[last - 1] + index.durations[last - 1]
    return index.pts[first] * index.time_base, end * index.time_base


def _time_packets(
    plan: VideoPlan, segments: Sequence[Path], delay: int, film: Any
) -> Iterator[tuple[Fraction, int, Packet[Any]]]:
    """Yield the packets of all chunks with their decoding times in seconds.

    A segment's packets in order of their own times are the frames of its chunk, so the n-th of
    them gets the presentation time of the n-th frame, exactly. Decoding times only have to rise
    and to be no later than presentation: those of the frames, in order, less `delay`.
    """
    import av

    index = plan.source.index
    shift = index.pts[plan.frames[0]] if plan.trimmed else 0
    written = plan.frames[0]
    for (start, stop), path in zip(plan.chunks, segments, strict=True):
        with av.open(str(path)) as segment:
            packets = [p for p in segment.demux(segment.streams.video[0]) if p.size]
        if len(packets) != stop - start:
            raise VideoError(f"{path}: has {len(packets)} frames, expected {stop - start}")
        ranks = {pts: rank for rank, pts in enumerate(sorted(p.pts or 0 for p in packets))}
        for old in packets:
            number = start + ranks[old.pts or 0]
            packet = av.Packet(bytes(old))
            packet.pts = index.pts[number] - shift
            packet.dts = index.pts[written] - delay - shift
            packet.duration = index.durations[number]
            packet.time_base, packet.is_keyframe = index.time_base, old.is_keyframe
            packet.stream = film
            yield packet.dts * index.time_base, 0, packet
            written += 1


def _read_copies(
    source: InputContainer, outputs: Mapping[int, Any], plan: VideoPlan
) -> Iterator[tuple[Fraction, int, Packet[Any]]]:
    """Yield the packets to copy, unchanged, with their decoding times in seconds.

    Of a trimmed video those that begin within it, their times counted from its beginning.
    """
    begin, end = _limits(plan)
    if plan.trimmed and begin:
        source.seek(int(begin * 1_000_000), backward=True)
    for packet in source.demux([source.streams[index] for index in outputs]):
        base = packet.time_base
        if packet.dts is None or not packet.size or not base:
            continue
        time = packet.dts * base
        if plan.trimmed:
            shown = (packet.dts if packet.pts is None else packet.pts) * base
            if not begin <= shown < end:
                continue
            ticks = round(begin / base)
            packet.dts -= ticks
            packet.pts = None if packet.pts is None else packet.pts - ticks
            time -= begin
        packet.stream = outputs[packet.stream_index]
        yield time, 1, packet
