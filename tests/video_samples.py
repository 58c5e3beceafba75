"""Videos made for the tests, and a network that repeats pixels."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as pillow

from realesr_cli.engine.settings import EngineSettings
from realesr_cli.engine.upscaler import Upscaler
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.video.report import VideoReport
from realesr_cli.video.settings import VideoSettings
from realesr_cli.video.upscale_video import upscale_video

QUALITY = 0x4 | 0x40000 | 0x2000 | 0x4000
"""Bicubic, accurate rounding, full chroma in and out."""
ENGINE = EngineSettings(device="cpu", precision="fp32", backend="torch", tile=0, overlap=4)


def nearest(scale: int = 2, **engine: Any) -> Upscaler:
    """A Compact network of zeros, which repeats each pixel scale x scale times."""
    net = CompactArchitecture(scale=scale, features=4, convs=1).build().eval()
    for parameter in net.parameters():
        torch.nn.init.zeros_(parameter)
    settings = {"device": "cpu", "precision": "fp32", "backend": "torch", "tile": 0, "overlap": 4}
    return Upscaler(net, EngineSettings(**{**settings, **engine}))


class CountingUpscaler(Upscaler):
    """Counts its calls."""

    calls = 0

    def __call__(self, *args: Any, **named: Any) -> Any:
        type(self).calls += 1
        return super().__call__(*args, **named)


def moving(count: int, width: int = 64, height: int = 48, seed: int = 0) -> list[NDArray[Any]]:
    """RGB frames of smooth noise that moves by a pixel each."""
    small = np.random.default_rng(seed).integers(0, 256, (height // 8 + 2, width // 8 + 2, 3))
    image = pillow.fromarray(small.astype(np.uint8)).resize((width, height), pillow.BICUBIC)
    return [np.roll(np.asarray(image), i, axis=1) for i in range(count)]


@dataclass(frozen=True)
class Clip:
    """How a clip is made."""

    codec: str = "libx264"
    options: tuple[tuple[str, str], ...] = (("preset", "ultrafast"), ("g", "12"), ("bf", "2"))
    pix_fmt: str = "yuv420p"
    rate: int = 25
    time_base: Fraction = Fraction(1, 12800)
    pts: tuple[int, ...] = ()
    matrix: int = 0
    range: int = 0
    primaries: int = 2
    transfer: int = 2
    sar: Fraction | None = None
    rotation: int = 0
    aac: int = 0
    """Blocks of 1024 samples of an audio stream."""


def make_clip(path: Path, frames: Sequence[Any], clip: Clip = Clip()) -> Path:
    """Encode RGB arrays, or frames of PyAV, into a file."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream(clip.codec, rate=clip.rate, options=dict(clip.options))
        height, width = frames[0].shape[:2] if hasattr(frames[0], "shape") else (
            frames[0].height, frames[0].width)  # fmt: skip
        stream.width, stream.height, stream.pix_fmt = width, height, clip.pix_fmt
        context = stream.codec_context
        stream.time_base = context.time_base = clip.time_base
        if clip.matrix:
            context.colorspace, context.color_range = clip.matrix, clip.range
            context.color_primaries, context.color_trc = clip.primaries, clip.transfer
        if clip.sar:
            context.sample_aspect_ratio = clip.sar
        if clip.rotation:
            stream.set_display_rotation(clip.rotation)
        audio = output.add_stream("aac", rate=16000) if clip.aac else None
        step = int(1 / (clip.rate * clip.time_base))
        for number, pixels in enumerate(frames):
            frame = pixels if isinstance(pixels, av.VideoFrame) else to_frame(pixels, clip)
            frame.pts = clip.pts[number] if clip.pts else number * step
            frame.time_base = clip.time_base
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        for block in range(clip.aac):
            wave = np.sin(np.arange(1024) / (5 + block)).astype(np.float32)[None] / 2
            sound = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            sound.sample_rate, sound.pts = 16000, block * 1024
            assert audio is not None
            output.mux(audio.encode(sound))
        if audio is not None:
            output.mux(audio.encode(None))
    return path


def to_frame(pixels: NDArray[Any], clip: Clip) -> av.VideoFrame:
    """Convert RGB by the clip's matrix and range."""
    source = "gbrp16le" if pixels.dtype == np.uint16 else "rgb24"
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=source).reformat(
        format=clip.pix_fmt,
        dst_colorspace={6: 5, 0: 5}.get(clip.matrix, clip.matrix),
        dst_color_range=clip.range or 1,
        src_color_range=2,
        interpolation=QUALITY,
    )


def run(
    source: Path, target: Path, upscaler: Upscaler | None = None, **settings: Any
) -> VideoReport:
    """Upscale with the network that repeats pixels, in chunks of half a second."""
    chosen = VideoSettings(**{"chunk_seconds": 0.5, "preset": None, **settings})
    return upscale_video(source, target, model=upscaler or nearest(), settings=chosen)


def packets(path: Path, stream: int = 0) -> list[tuple[Any, ...]]:
    """Time, duration, key flag and hash of every packet of a stream."""
    with av.open(str(path)) as container:
        return [
            (p.pts, p.dts, p.duration, p.is_keyframe, hashlib.sha256(bytes(p)).hexdigest())
            for p in container.demux(container.streams[stream])
            if p.size
        ]


def decoded(path: Path) -> list[av.VideoFrame]:
    """All frames of the film."""
    with av.open(str(path)) as container:
        return list(container.decode(container.streams.best("video")))


def times(path: Path) -> list[Fraction]:
    """When each frame is shown, in seconds."""
    return [frame.pts * frame.time_base for frame in decoded(path)]


def planes_of(frame: av.VideoFrame) -> list[NDArray[Any]]:
    """The planes of a frame as arrays."""
    found = []
    for plane, part in zip(frame.planes, frame.format.components, strict=False):
        dtype = np.dtype(np.uint16 if part.bits > 8 else np.uint8)
        rows = np.frombuffer(plane, dtype).reshape(plane.height, -1)
        found.append(rows[:, : plane.width].astype(int))
    return found


def make_rich(path: Path, folder: Path) -> Path:
    """A Matroska file with two audio streams, two of subtitles, a font, a cover and chapters."""
    (folder / "a.srt").write_text("1\n00:00:00,100 --> 00:00:00,600\nHallo\n\n")
    (folder / "a.ass").write_text(
        "[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\nFormat: Name, Fontname, Fontsize\n"
        "Style: Default,Arial,20\n\n[Events]\nFormat: Layer, Start, End, Style, Text\n"
        "Dialogue: 0,0:00:00.10,0:00:00.60,Default,Hi\n"
    )
    cover = io.BytesIO()
    pillow.new("RGB", (32, 32), "red").save(cover, "JPEG")
    with av.open(str(path), "w") as output, av.open(str(folder / "a.srt")) as srt, av.open(
        str(folder / "a.ass")
    ) as ass:  # fmt: skip
        film = output.add_stream("libx264", rate=25, options={"preset": "ultrafast", "bf": "2"})
        film.width, film.height, film.pix_fmt = 64, 48, "yuv420p"
        film.metadata["language"] = "fra"
        sounds = [output.add_stream("aac", rate=16000), output.add_stream("flac", rate=16000)]
        for sound, language in zip(sounds, ("eng", "jpn"), strict=True):
            sound.metadata["language"] = language
            sound.metadata["title"] = f"track {language}"
        sounds[1].disposition = av.stream.Disposition.default
        texts = [(one, output.add_stream_from_template(one.streams[0])) for one in (srt, ass)]
        texts[0][1].metadata["language"] = "deu"
        texts[0][1].disposition = av.stream.Disposition.forced
        output.add_attachment("a.ttf", "application/x-truetype-font", b"\0\1\0\0" + b"f" * 99)
        output.add_attachment("cover.jpg", "image/jpeg", cover.getvalue())
        millisecond = Fraction(1, 1000)
        output.set_chapters(
            [
                {"id": n + 1, "start": n * 500, "end": (n + 1) * 500, "time_base": millisecond,
                 "metadata": {"title": f"Part {n}"}}
                for n in range(2)
            ]
        )  # fmt: skip
        output.metadata["title"] = "A film"
        for number, pixels in enumerate(moving(30)):
            frame = to_frame(pixels, Clip())
            frame.pts = number
            output.mux(film.encode(frame))
        output.mux(film.encode(None))
        for sound, late in zip(sounds, (3200, 0), strict=True):
            for block in range(15):
                wave = (np.sin(np.arange(1024) / (5 + block)) * 8000).astype(np.int16)[None]
                if sound is sounds[0]:
                    wave = wave.astype(np.float32) / 32768
                format = "fltp" if sound is sounds[0] else "s16"
                samples = av.AudioFrame.from_ndarray(wave, format=format, layout="mono")
                samples.sample_rate, samples.pts = 16000, block * 1024 + late
                output.mux(sound.encode(samples))
            output.mux(sound.encode(None))
        for container, stream in texts:
            for packet in container.demux():
                if packet.dts is not None:
                    packet.stream = stream
                    output.mux(packet)
    return path
