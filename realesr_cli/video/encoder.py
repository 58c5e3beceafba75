"""Encoders: which codec, pixel format and options, and one chunk of film as a file of packets."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from realesr_cli.engine.policy import cpu_flags
from realesr_cli.errors import VideoError
from realesr_cli.text import did_you_mean, format_names
from realesr_cli.video.color import ColorTags, hdr_params
from realesr_cli.video.frames import SCALER_WHITE, Array, rgb_format, scale_levels
from realesr_cli.video.library import scaling_flags, writing
from realesr_cli.video.settings import VideoSettings
from realesr_cli.video.streams import VideoSource

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.stream import VideoStream

Options = tuple[tuple[str, str], ...]

_TICK = Fraction(1, 1000)
_TICKS = 40
"""Milliseconds per frame inside a segment, whose times are only ranks."""


@dataclass(frozen=True)
class VideoCodec:
    """An encoder of FFmpeg, with our defaults."""

    encoder: str
    quality: tuple[str, int, int] | None
    """Name of the quality option, its default for 8 bits and for more; None is lossless."""
    preset: tuple[str, str] | None = ("preset", "medium")
    options: Options = ()
    params: str = ""
    """Option that takes static HDR metadata."""


VIDEO_CODECS = {
    "x264": VideoCodec("libx264", ("crf", 17, 17), params="x264-params"),
    "x265": VideoCodec(
        "libx265", ("crf", 18, 18), options=(("x265-params", "log-level=error:open-gop=0"),),
        params="x265-params",
    ),
    "av1": VideoCodec("libsvtav1", ("crf", 24, 24), ("preset", "6"), params="svtav1-params"),
    "vp9": VideoCodec(
        "libvpx-vp9", ("crf", 24, 24), ("deadline", "good"),
        (("b", "0"), ("cpu-used", "2"), ("row-mt", "1")),
    ),
    "ffv1": VideoCodec("ffv1", None, None, (("level", "3"), ("g", "1"), ("slicecrc", "1"))),
    "prores": VideoCodec("prores_ks", None, None),
    **{
        name: VideoCodec(name, ("cq", 19, 20), ("preset", "p5"), (("rc", "vbr"), ("b", "0")))
        for name in ("h264_nvenc", "hevc_nvenc", "av1_nvenc")
    },
}  # fmt: skip


@dataclass(frozen=True)
class EncoderSpec:
    """Everything that decides the bits of an encoded chunk."""

    encoder: str
    options: Options
    pix_fmt: str
    width: int
    height: int
    rate: Fraction
    time_base: Fraction
    sar: Fraction
    color: ColorTags
    deep: bool
    """Whether frames come with 16 bits."""
    alpha: bool
    threads: int


def choose_encoder(
    source: VideoSource, size: tuple[int, int], container: str, settings: VideoSettings
) -> EncoderSpec:
    """Choose codec, pixel format and options for a result of (height, width).

    Raises VideoError for options that the encoder does not have.
    """
    import av

    name = settings.codec
    if name == "auto":
        name = "vp9" if container == "webm" else "x265" if source.bits > 8 else "x264"
    codec = VIDEO_CODECS[name]
    alpha = source.alpha and name in ("ffv1", "prores")
    known = [f.name for f in av.Codec(codec.encoder, "w").video_formats or ()]
    pix_fmt = settings.pix_fmt
    if pix_fmt == "auto":
        pix_fmt = choose_format(known, source, alpha=alpha)
    elif pix_fmt not in known:
        near = did_you_mean(pix_fmt, known)
        raise VideoError(f"pix_fmt = {pix_fmt!r}: {name} does not have this pixel format{near}")
    options = dict(codec.options)
    if codec.quality is not None:
        option, usual, deep = codec.quality
        usual = deep if source.bits > 8 else usual
        options[option] = str(usual if settings.crf is None else settings.crf)
    elif settings.crf is not None:
        raise VideoError(f"crf = {settings.crf}: {name} has no such setting")
    if name == "prores":
        options["profile"] = "4444" if "444" in pix_fmt else "hq"
    if settings.preset is not None and codec.preset is None:
        raise VideoError(f"preset = {settings.preset!r}: {name} has no such setting")
    if codec.preset is not None:
        options[codec.preset[0]] = settings.preset or codec.preset[1]
    if name == "x264" and "avx512f" in cpu_flags():
        # x264's code for AVX-512 reads memory that was never written: at some widths, such as 320,
        # packets differ between runs. Its code for AVX2 always gives the same ones.
        _join(options, "x264-params", "asm=avx2")
    if source.hdr is not None and codec.params:
        _join(options, codec.params, hdr_params(codec.params, source.hdr))
    for text in settings.encoder_opt:
        option, _, value = text.partition("=")
        if option.endswith("-params"):
            _join(options, option, value)
        else:
            options[option] = value
    return EncoderSpec(
        encoder=codec.encoder, options=tuple(sorted(options.items())), pix_fmt=pix_fmt,
        width=size[1], height=size[0], rate=source.rate, time_base=source.index.time_base,
        sar=source.sar, color=source.color, deep=source.bits > 8, alpha=alpha,
        threads=min(16, os.cpu_count() or 1),
    )  # fmt: skip


def choose_format(known: Sequence[str], source: VideoSource, *, alpha: bool) -> str:
    """Return the pixel format nearest to the source's: no fewer bits and no less chroma."""
    from av.video.format import VideoFormat

    # Players rarely show 4:4:4, and an animation is no master to be kept.
    wanted = (2, 2) if source.kind == "animation" else source.chroma

    def distance(name: str) -> tuple[Any, ...]:
        format = VideoFormat(name, 16, 16)
        parts = format.components
        bits = max((c.bits for c in parts), default=0)
        chroma = (1, 1) if len(parts) < 3 else (16 // parts[1].width, 16 // parts[1].height)
        less = chroma[0] > wanted[0] or chroma[1] > wanted[1]
        return (
            format.is_rgb or len(parts) < 3 or name.startswith("yuvj"),
            any(c.is_alpha for c in parts) != alpha,
            bits < source.bits,
            less,
            abs(bits - source.bits),
            abs(chroma[0] - wanted[0]) + abs(chroma[1] - wanted[1]),
            not name.startswith("yuv"),
        )

    return min((name for name in known if name not in ("cuda", "qsv")), key=distance)


def needs_even(pix_fmt: str) -> tuple[int, int]:
    """Return what (height, width) must be multiples of in a pixel format."""
    from av.video.format import VideoFormat

    parts = VideoFormat(pix_fmt, 16, 16).components
    return (1, 1) if len(parts) < 3 else (16 // parts[1].height, 16 // parts[1].width)


def _join(options: dict[str, str], name: str, value: str) -> None:
    """Append to an option that is a list of parameters."""
    options[name] = ":".join(part for part in (options.get(name, ""), value) if part)


def add_encoder(container: OutputContainer, spec: EncoderSpec) -> VideoStream:
    """Add the encoded stream to a container."""
    import av

    stream = container.add_stream(spec.encoder, rate=spec.rate, options=dict(spec.options))
    assert isinstance(stream, av.VideoStream)
    stream.width, stream.height, stream.pix_fmt = spec.width, spec.height, spec.pix_fmt
    context = stream.codec_context
    # Both, or the timestamps of a variable frame rate are rounded to the rate.
    stream.time_base = context.time_base = spec.time_base
    context.sample_aspect_ratio = spec.sar
    context.color_primaries = spec.color.primaries
    context.color_trc = spec.color.transfer
    context.colorspace = spec.color.matrix
    context.color_range = spec.color.range
    context.thread_count = spec.threads
    return stream


def try_encoder(spec: EncoderSpec, container: str) -> None:
    """Open the encoder at its size, in memory. Raises VideoError where that fails."""
    import av

    try:
        with av.open(io.BytesIO(), "w", format=container) as memory:
            stream = add_encoder(memory, spec)
            memory.start_encoding()
            # FFmpeg takes out what it knows and ignores the rest silently.
            unknown = sorted(stream.codec_context.options)
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise VideoError(
            f"{spec.encoder} cannot encode {spec.width}x{spec.height} {spec.pix_fmt} into "
            f"{container}: {getattr(error, 'strerror', None) or error}",
            advice="video-encoder",
        ) from error
    if unknown:
        raise VideoError(f"{spec.encoder} has no option {format_names(unknown)}")


def _round_planes(wide: Any, spec: EncoderSpec) -> Any:
    """Round planes of 16 bits to a full-range format of fewer.

    FFmpeg's scaler truncates chroma there, which takes half a level off it.
    """
    import av

    frame = av.VideoFrame(spec.width, spec.height, spec.pix_fmt)
    for number, (new, old, part) in enumerate(
        zip(frame.planes, wide.planes, frame.format.components, strict=True)
    ):
        levels = np.frombuffer(memoryview(old), np.uint16).reshape(old.height, -1)[:, : old.width]
        center = 32768.0 if number in (1, 2) else 0.0
        values = (levels - center) * ((2**part.bits - 1) / 65535)
        dtype: Any = np.uint16 if part.bits > 8 else np.uint8
        rows = np.zeros((new.height, new.line_size // dtype().itemsize), dtype)
        values = np.rint(values + (2 ** (part.bits - 1) if center else 0))
        rows[:, : new.width] = values.clip(0, 2**part.bits - 1)
        new.update(rows.tobytes())
    frame.colorspace, frame.color_range = spec.color.matrix, spec.color.range
    return frame


class SegmentWriter:
    """Encodes the frames of one chunk into a Matroska file whose timestamps are ranks.

    Every chunk has an encoder of its own, so that it begins with a key frame and depends on no
    other. The real times, which the encoder sees for its rate control, come back in `mux`.
    """

    def __init__(self, path: Path, spec: EncoderSpec, pts: Sequence[int]) -> None:
        import av
        from av.video.reformatter import VideoReformatter

        self._path, self._spec, self._pts = path, spec, pts
        self._ranks = {time: rank for rank, time in enumerate(pts)}
        self._scaler = VideoReformatter()
        self._added = self._written = 0
        self.delay = 0
        """How far decoding times must lie before presentation times, in ticks of the source."""
        with writing(path):
            self._container = av.open(
                str(path), "w", format="matroska", options={"fflags": "+bitexact"}
            )
            self._stream = add_encoder(self._container, spec)

    def add(self, pixels: Array, alpha: Array | None) -> None:
        """Encode the next frame: (h, w, 3) of uint8 or uint16."""
        with writing(self._path):
            frame = self._to_frame(pixels, alpha)
            frame.pts, frame.time_base = self._pts[self._added], self._spec.time_base
            frame.pict_type = 0
            self._added += 1
            self._mux(self._stream.encode(frame))

    def _to_frame(self, pixels: Array, alpha: Array | None) -> Any:
        """Convert RGB to the pixel format, with explicit matrix and range."""
        import av

        spec = self._spec
        if spec.deep and not spec.pix_fmt.startswith(("gbr", "rgb")):
            pixels = scale_levels(65535, SCALER_WHITE)[pixels]
        if spec.alpha:
            if alpha is None:
                alpha = np.full(pixels.shape[:2], np.iinfo(pixels.dtype).max, pixels.dtype)
            pixels = np.dstack([pixels, alpha])
        frame = av.VideoFrame.from_ndarray(
            np.ascontiguousarray(pixels), format=rgb_format(spec.deep, spec.alpha)
        )
        planar = re.match(r"yuva?4\d\dp(?!\d\d\d)", spec.pix_fmt)
        full = planar is not None and spec.color.range == 2
        converted = self._scaler.reformat(
            frame, format=f"{planar[0]}16le" if planar and full else spec.pix_fmt,
            dst_colorspace=spec.color.scaler_matrix, dst_color_range=spec.color.range,
            src_color_range=2, interpolation=scaling_flags(),
        )  # fmt: skip
        return _round_planes(converted, spec) if full else converted

    def _mux(self, packets: Sequence[Any]) -> None:
        for packet in packets:
            rank = self._ranks[packet.pts]
            self.delay = max(self.delay, self._pts[self._written] - packet.pts)
            packet.pts, packet.dts = rank * _TICKS, (self._written - len(self._pts)) * _TICKS
            packet.duration, packet.time_base = _TICKS, _TICK
            packet.stream = self._stream
            self._container.mux(packet)
            self._written += 1

    def finish(self) -> None:
        """Encode what is left and write the file to disk. Raises VideoError for a lost frame."""
        with writing(self._path):
            self._mux(self._stream.encode(None))
            self._container.close()
            with self._path.open("rb+") as file:
                os.fsync(file.fileno())
        if not self._added == self._written == len(self._pts):
            raise VideoError(
                f"{self._spec.encoder} gave {self._written} packets for {self._added} frames of "
                f"{len(self._pts)}"
            )

    def abort(self) -> None:
        """Close the file as it is."""
        self._container.close()
