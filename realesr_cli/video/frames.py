"""Frames of a film as RGB: decoded by number, wherever one begins, with holes where they fail."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from realesr_cli.errors import VideoError
from realesr_cli.video.library import reading, scaling_flags
from realesr_cli.video.streams import VideoSource, decode

if TYPE_CHECKING:
    import av

Array = NDArray[Any]
Span = tuple[int, int]
"""Frames from the first number up to, without, the second."""

_FORMATS = {
    (False, False): "rgb24",
    (False, True): "rgba",
    (True, False): "gbrp16le",
    (True, True): "gbrap16le",
}
"""Formats of RGB arrays, by more than 8 bits and alpha."""

SCALER_WHITE = 255 << 8
"""White of 16-bit RGB for FFmpeg's scaler; of full-range YUV it makes the bits shifted up."""

_CONTEXT = 2
"""Frames that the deinterlacer reads beyond a span, to each side."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One decoded frame."""

    number: int
    pixels: Array
    """(height, width, 3) of uint8 or uint16, full-range RGB."""
    alpha: Array | None = None
    planes: tuple[Array, ...] = ()
    """What near repeats are compared by: (h, w) each, in 8-bit levels; only where requested."""
    corrupt: bool = False
    """Whether the decoder reports damage."""


@dataclass(frozen=True)
class ReadOptions:
    """How frames are read."""

    alpha: bool = False
    planes: bool = False
    deinterlace: str = "off"


@functools.cache
def scale_levels(old: int, new: int) -> Array:
    """Return the table of 16-bit levels that takes `old` to `new`, and what is above to white."""
    levels = np.arange(65536, dtype=np.float64) * (new / old)
    return np.minimum(np.rint(levels), 65535).astype(np.uint16)


def rgb_format(deep: bool, alpha: bool) -> str:
    """Return FFmpeg's name of the RGB format that is used between decoder and encoder."""
    return _FORMATS[deep, alpha]


def read_film(source: VideoSource, span: Span, options: ReadOptions) -> Iterator[Frame | None]:
    """Yield the frames of a span in order, None for each that cannot be decoded.

    Raises VideoError where the file cannot be opened and where its frames change their size.
    """
    from av.video.reformatter import VideoReformatter

    scaler = VideoReformatter()
    start, stop = span
    context = _CONTEXT if options.deinterlace != "off" else 0
    wide = max(0, start - context), min(len(source.index), stop + context)
    found = _find_frames(source, wide)
    if context:
        found = _deinterlace(source, found, options.deinterlace)
    position = start
    for number, frame in found:
        if position <= number < stop:
            yield from [None] * (number - position)
            yield _convert(source, scaler, number, frame, options)
            position = number + 1
    yield from [None] * (stop - position)


def _find_frames(source: VideoSource, span: Span) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yield the frames of a span with their numbers, decoded from the key frame before it.

    Where that does not give the first one, decoding begins at an earlier key frame, in the end at
    the beginning of the file: some containers seek too far.
    """
    index = source.index
    key = index.key_before(span[0])
    places = [key, index.key_before(max(0, key - 1)), 0]
    if index.by_order:
        places = [0]
    places = [place if place <= span[0] else 0 for place in places]
    for place in dict.fromkeys(places):
        frames = _decode_span(source, span, place)
        first = next(frames, None)
        if place and (first is None or first[0] != span[0]):
            continue
        if first is not None:
            yield first
            yield from frames
        return


def _decode_span(
    source: VideoSource, span: Span, place: int
) -> Iterator[tuple[int, av.VideoFrame]]:
    import av

    index = source.index
    numbers = {index.pts[number]: number for number in range(*span)}
    with reading(source.path), av.open(str(source.path), metadata_errors="ignore") as container:
        stream = container.streams[source.stream]
        assert isinstance(stream, av.VideoStream)
        stream.thread_type = "AUTO"
        if place:
            container.seek(index.pts[place], stream=stream, backward=True)
        last = -1
        for count, frame in enumerate(decode(container, stream)):
            if not index.by_order and frame.pts is not None and frame.pts > index.pts[span[1] - 1]:
                return
            number = count if index.by_order else numbers.get(frame.pts or 0)
            if number is None or number <= last or number < span[0]:
                continue
            if number >= span[1]:
                return
            size = frame.width, frame.height
            if size != (source.width, source.height):
                raise VideoError(
                    f"{source.path}: frame {number} changes the size from {source.width}x"
                    f"{source.height} to {size[0]}x{size[1]}, which is not supported"
                )
            last = number
            yield number, frame


def _deinterlace(
    source: VideoSource, frames: Iterator[tuple[int, av.VideoFrame]], mode: str
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Deinterlace by bwdif, one frame for each; `auto` leaves progressive frames alone."""
    import av
    from av.filter import Graph
    from av.video.format import VideoFormat

    index, graph, waiting = source.index, Graph(), dict[int, int]()
    deint = "interlaced" if mode == "auto" else "all"
    buffer = graph.add_buffer(
        width=source.width, height=source.height, format=VideoFormat(source.pixel_format),
        time_base=index.time_base,
    )  # fmt: skip
    bwdif, sink = graph.add("bwdif", f"mode=send_frame:deint={deint}"), graph.add("buffersink")
    buffer.link_to(bwdif)
    bwdif.link_to(sink)
    graph.configure()

    def pull() -> Iterator[tuple[int, av.VideoFrame]]:
        while True:
            try:
                frame = graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            assert isinstance(frame, av.VideoFrame)
            assert frame.time_base is not None
            pts = round((frame.pts or 0) * frame.time_base / index.time_base)
            if pts in waiting:
                yield waiting.pop(pts), frame

    for number, frame in frames:
        # Given by number, so that repaired timestamps and missing ones do not matter.
        frame.pts, frame.time_base = index.pts[number], index.time_base
        waiting[index.pts[number]] = number
        graph.push(frame)
        yield from pull()
    graph.push(None)
    yield from pull()


def _convert(
    source: VideoSource, scaler: Any, number: int, frame: av.VideoFrame, options: ReadOptions
) -> Frame:
    """Convert to full-range RGB of 8 or 16 bits, with explicit matrix and range."""
    color = source.color
    name = rgb_format(source.bits > 8, options.alpha)
    range_ = {} if source.rgb else {"src_color_range": color.range}
    matrix = {} if source.rgb else {"src_colorspace": color.scaler_matrix}
    converted = scaler.reformat(
        frame, format=name, dst_color_range=2, interpolation=scaling_flags(), **range_, **matrix
    )
    array = np.ascontiguousarray(converted.to_ndarray())
    alpha = np.ascontiguousarray(array[..., 3]) if options.alpha else None
    pixels = np.ascontiguousarray(array[..., :3])
    if source.bits > 8 and not source.rgb:
        white = SCALER_WHITE
        if color.range == 2:
            white = (2**source.bits - 1) << (16 - source.bits)
        pixels = scale_levels(white, 65535)[pixels]
    planes = _read_planes(frame, pixels) if options.planes else ()
    return Frame(number, pixels, alpha, planes, bool(frame.is_corrupt))


def _read_planes(frame: av.VideoFrame, pixels: Array) -> tuple[Array, ...]:
    """Return luma and chroma in 8-bit levels; of formats that are not planar YUV, the colors."""
    if not frame.format.name.startswith(("yuv", "gray")) or frame.format.name.startswith("yuyv"):
        levels = pixels >> 8 if pixels.dtype == np.uint16 else pixels
        return tuple(levels[..., i] for i in range(3))
    planes = []
    for plane, component in zip(frame.planes[:3], frame.format.components, strict=False):
        dtype: Any = np.uint16 if component.bits > 8 else np.uint8
        rows = np.frombuffer(memoryview(plane), dtype).reshape(plane.height, -1)[:, : plane.width]
        shift = component.bits - 8
        planes.append((rows >> shift).astype(np.uint8) if shift > 0 else rows.copy())
    return tuple(planes)
