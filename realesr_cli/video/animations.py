"""Animated GIF, PNG and WebP through Pillow: frames, delays and the number of plays."""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from realesr_cli.atomic import write_errors
from realesr_cli.errors import VideoError
from realesr_cli.video.color import ColorTags
from realesr_cli.video.frames import Array, Frame, ReadOptions, Span
from realesr_cli.video.streams import FrameIndex, VideoSource

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

ANIMATIONS = {"gif": "GIF", "apng": "PNG", "webp": "WEBP"}
"""Pillow's name of each container that holds images only."""

_SHORTEST = 10
"""Milliseconds a frame is shown at least; files that state less mean `as fast as possible`."""

_SIGNATURES = {b"GIF8": "gif", b"\x89PNG": "apng", b"RIFF": "webp"}

_OPAQUE = 128
"""Alpha from which a pixel of a GIF is opaque."""
_HEADER = struct.Struct("<II")


def find_animation(path: Path) -> str | None:
    """Return the container of an animated image, None for another file.

    Raises VideoError for a still image of these formats.
    """
    from PIL import Image as pillow

    with path.open("rb") as file:
        start = file.read(12)
    container = _SIGNATURES.get(start[:4])
    if container is None or (container == "webp" and start[8:] != b"WEBP"):
        return None
    try:
        with pillow.open(path, formats=[ANIMATIONS[container]]) as image:
            if getattr(image, "n_frames", 1) < 2:
                raise VideoError(f"{path}: is an image, not a video", advice="image-not-video")
    except (OSError, SyntaxError, ValueError) as error:
        raise VideoError(f"{path}: cannot be read as an animation: {error}") from error
    return container


def open_animation(path: Path, container: str) -> VideoSource:
    """Read everything of an animation but its pixels, which are decoded once for the delays."""
    delays, alpha, size, loop = [], False, (0, 0), None
    for image in _iterate(path):
        delays.append(round(image.info.get("duration") or 0))
        size, loop = image.size, image.info.get("loop", loop)
        alpha = alpha or np.asarray(image.convert("RGBA"))[..., 3].min() < 255
    shown = [max(_SHORTEST, delay) for delay in delays]
    if container == "gif":  # Without the extension once; else that many repetitions after it.
        loop = 1 if loop is None else loop + 1 if loop else 0
    index = FrameIndex(
        pts=tuple(accumulate(shown[:-1], initial=0)), durations=tuple(shown),
        time_base=Fraction(1, 1000), digest=hashlib.sha256(path.read_bytes()).hexdigest(),
        by_order=True,
    )  # fmt: skip
    return VideoSource(
        path=path, kind="animation", format=container, width=size[0], height=size[1],
        pixel_format="rgba" if alpha else "rgb24", bits=8, index=index,
        color=ColorTags(1, 1, 1, 13), rate=Fraction(1000 * len(shown), sum(shown)),
        codec=container, alpha=bool(alpha), rgb=True, loop=1 if loop is None else loop,
    )  # fmt: skip


def _iterate(path: Path) -> Iterator[PillowImage]:
    """Yield the composed frames; the hidden default image of a PNG is none of them."""
    from PIL import Image as pillow
    from PIL import ImageSequence

    try:
        with pillow.open(path) as image:
            hidden = bool(getattr(image, "default_image", False))
            for number, frame in enumerate(ImageSequence.Iterator(image)):
                if not (hidden and number == 0):
                    frame.load()
                    yield frame
    except (OSError, SyntaxError, ValueError) as error:
        raise VideoError(f"{path}: cannot be read as an animation: {error}") from error


def read_animation(source: VideoSource, span: Span, options: ReadOptions) -> Iterator[Frame | None]:
    """Yield the frames of a span; they build on each other, so those before are decoded too."""
    for number, image in enumerate(_iterate(source.path)):
        if number >= span[1]:
            return
        if number >= span[0]:
            array = np.asarray(image.convert("RGBA"))
            pixels = np.ascontiguousarray(array[..., :3])
            alpha = np.ascontiguousarray(array[..., 3]) if options.alpha else None
            planes = tuple(pixels[..., i] for i in range(3)) if options.planes else ()
            yield Frame(number, pixels, alpha, planes)


class RawWriter:
    """Stores the frames of one chunk losslessly, for Pillow to encode them at the end."""

    delay = 0

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def add(self, pixels: Array, alpha: Array | None) -> None:
        """Store the next frame in 8 bits."""
        if pixels.dtype == np.uint16:
            pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
        if alpha is not None:
            pixels = np.dstack([pixels, alpha])
        data = zlib.compress(np.ascontiguousarray(pixels).data, 1)
        self._file.write(_HEADER.pack(len(data), pixels.shape[2]) + data)

    def finish(self) -> None:
        """Write the file to disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def abort(self) -> None:
        """Close the file as it is."""
        self._file.close()


class _StoredFrames(Sequence[Any]):
    """The frames of all chunks as Pillow images, decompressed when asked for."""

    def __init__(self, segments: Sequence[Path], size: tuple[int, int], *, one_bit: bool) -> None:
        """Find the frames of `size` (width, height); `one_bit` makes alpha all or nothing."""
        self._size, self._one_bit = size, one_bit
        self._places: list[tuple[Path, int, int, int]] = []
        for path in segments:
            with path.open("rb") as file:
                while header := file.read(_HEADER.size):
                    length, channels = _HEADER.unpack(header)
                    self._places.append((path, file.tell(), length, channels))
                    file.seek(length, 1)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, key: Any) -> Any:
        from PIL import Image as pillow

        if isinstance(key, slice):
            rest = _StoredFrames((), self._size, one_bit=self._one_bit)
            rest._places = self._places[key]
            return rest
        path, offset, length, channels = self._places[key]
        with path.open("rb") as file:
            file.seek(offset)
            data = zlib.decompress(file.read(length))
        width, height = self._size
        array = np.frombuffer(data, np.uint8).reshape(height, width, channels)
        if self._one_bit and channels == 4:
            clear = array[..., 3] < _OPAQUE
            array = np.where(clear[..., None], np.uint8(0), array)
            array[..., 3] = np.where(clear, 0, 255)
        return pillow.fromarray(array)


def write_animation(
    path: Path,
    container: str,
    segments: Sequence[Path],
    source: VideoSource,
    shape: tuple[Span, tuple[int, int]],
) -> None:
    """Encode the stored frames with the delays of the source.

    `shape` is the frames of the source that are stored, and their (width, height) now.
    """
    (first, last), size = shape
    frames = _StoredFrames(segments, size, one_bit=container == "gif")
    if len(frames) != last - first:
        raise VideoError(f"the chunks have {len(frames)} frames, expected {last - first}")
    delays = _delays(source, (first, last), 10 if container == "gif" else 1)
    plays = source.loop if source.loop is not None else 0
    options: dict[str, Any] = {"duration": delays}
    if container == "gif":
        options["optimize"] = False
        if plays != 1:
            options["loop"] = plays and plays - 1
        if source.alpha:
            options["disposal"] = 2
    elif container == "apng":
        options |= {"loop": plays, "disposal": 0, "blend": 0}
    else:
        options |= {"loop": plays, "method": 4, "minimize_size": False}
        options |= {"quality": 90} if source.format not in ANIMATIONS else {"lossless": True}
    head, rest = frames[0], frames[1:]
    with write_errors(path):
        head.save(path, format=ANIMATIONS[container], save_all=True, append_images=rest, **options)


def _delays(source: VideoSource, frames: Span, step: int) -> list[int]:
    """Return how long frames are shown in ms, as multiples of `step` whose sums are rounded."""
    index = source.index
    ends = [*index.pts[frames[0] + 1 : frames[1]], index.pts[frames[1] - 1]]
    ends[-1] += index.durations[frames[1] - 1]
    milliseconds = float(index.time_base * 1000)
    sums = [0, *(step * round((end - index.pts[frames[0]]) * milliseconds / step) for end in ends)]
    return [max(step, b - a) for a, b in pairwise(sums)]
