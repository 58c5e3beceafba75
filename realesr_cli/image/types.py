"""The image as the package passes it around: pixels, alpha and metadata."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from realesr_cli.errors import OutOfMemoryError, UnsupportedImageError
from realesr_cli.image.pixels import BITS, Array
from realesr_cli.text import format_bytes

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

    from realesr_cli.image.formats import WriteSettings

TextChunks = tuple[tuple[bytes, bytes], ...]
"""Kind (tEXt, zTXt, iTXt) and content of the text chunks of a PNG, as stored."""


Band = tuple[Array, Array | None]
"""Rows of an image: pixels (n, width, channels), and alpha (n, width) or None."""


@dataclass(frozen=True)
class Metadata:
    """What a file carries besides its pixels; see `Image` for the fields."""

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    text: TextChunks = ()


@dataclass(frozen=True)
class Decoded:
    """An image as a decoder returns it, before its orientation is applied to the pixels."""

    pixels: Array
    alpha: Array | None
    metadata: Metadata
    format: str | None
    notes: tuple[str, ...] = ()
    orientation: int | None = None
    """Orientation of the pixels, as in EXIF; None if the metadata states it."""
    lossless: bool = False


@dataclass(frozen=True)
class ImageInfo:
    """An image as `read_image` returns it, without its pixels.

    The size is that of the upright image. A palette counts as three channels.
    """

    height: int
    width: int
    channels: int
    bits: int
    has_alpha: bool
    format: str | None


@dataclass(frozen=True, eq=False, kw_only=True)
class Attributes:
    """What belongs to an image besides its pixels."""

    icc: bytes | None = None
    """ICC profile of the pixels; None means sRGB."""
    exif: bytes | None = None
    """EXIF block from its byte order mark on, with orientation 1."""
    xmp: bytes | None = None
    """XMP packet."""
    dpi: tuple[float, float] | None = None
    """Pixels per inch, horizontally and vertically."""
    format: str | None = None
    """Pillow's name of the source's format."""
    notes: tuple[str, ...] = ()
    """What the user should know about how the image was read."""
    text: TextChunks = ()
    """Text chunks of a PNG, which PNG output keeps."""
    made_by: str | None = None
    """Record of what made this image, for `write_image` to store; see `probe.read_made_by`."""
    lossless: bool = False
    """Whether the source is compressed losslessly in a format that also compresses lossily."""
    hidden_color: bool = False
    """Whether the color of transparent pixels is data, which `write_image` keeps if it can."""

    @property
    def about(self) -> Attributes:
        """The attributes alone."""
        return Attributes(**{f.name: getattr(self, f.name) for f in fields(Attributes)})


@dataclass(frozen=True, eq=False)
class Image(Attributes):
    """An image in memory.

    `pixels` is (height, width, channels) with one channel (gray) or three (RGB), and `alpha` is
    (height, width) or None. Both have the same dtype: uint8, uint16, or float32 in [0, 1]. The
    pixels are upright: the file's orientation is applied. Two images are equal only if they are
    the same object.

    Raises UnsupportedImageError for other shapes and dtypes.
    """

    pixels: Array
    alpha: Array | None = None

    def __post_init__(self) -> None:
        shape, dtype = self.pixels.shape, self.pixels.dtype
        if len(shape) != 3 or shape[2] not in (1, 3) or 0 in shape or dtype not in BITS:
            raise UnsupportedImageError(
                "expected pixels of uint8, uint16 or float32 with shape (height, width, 1 or 3), "
                f"got {dtype} with shape {shape}"
            )
        alpha = self.alpha
        if alpha is not None and (alpha.shape != shape[:2] or alpha.dtype != dtype):
            raise UnsupportedImageError(
                f"expected alpha of {dtype} with shape {shape[:2]}, as the pixels have, got "
                f"{alpha.dtype} with shape {alpha.shape}"
            )

    @property
    def height(self) -> int:
        """Number of rows."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Number of columns."""
        return int(self.pixels.shape[1])

    @property
    def channels(self) -> int:
        """Number of color channels without alpha: 1 or 3."""
        return int(self.pixels.shape[2])

    @property
    def gray(self) -> bool:
        """Whether there is a single color channel."""
        return self.channels == 1

    @property
    def bits(self) -> int:
        """Bits per channel: 8, 16, or 32 for floats."""
        return BITS[self.pixels.dtype]

    @property
    def has_alpha(self) -> bool:
        """Whether there is an alpha channel."""
        return self.alpha is not None

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of pixels and alpha."""
        return self.pixels.dtype

    def with_pixels(self, pixels: Array, alpha: Array | None) -> Image:
        """Return the same image with other pixels and alpha; everything else is kept."""
        return dataclasses.replace(self, pixels=pixels, alpha=alpha)

    def save(self, path: Path | str, write: WriteSettings | None = None) -> None:
        """Write the image to a file atomically, in the format of its extension or of `write`.

        Raises UnsupportedImageError, ConfigError or ImageWriteError; see
        `realesr_cli.image.write.write_image`.
        """
        from realesr_cli.image.write import WriteSettings, write_image

        write_image(self, path, write or WriteSettings())

    def to_pil(self) -> PillowImage:
        """Return a Pillow image, with profile, EXIF, XMP and resolution in its `info`.

        Pillow has no 16-bit color: such images are rounded to 8 bits with a RealesrWarning.
        """
        from realesr_cli.image.write import to_pillow

        return to_pillow(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Return (height, width) for gray without alpha, else (height, width, channels)."""
        if self.alpha is not None:
            array = np.dstack([self.pixels, self.alpha])
        else:
            array = self.pixels[..., 0] if self.gray else self.pixels
        # numpy 1 has no copy=None, which means: only where needed.
        return np.array(array, dtype=dtype) if copy else np.asarray(array, dtype=dtype)


@dataclass(frozen=True, eq=False)
class ImageStream:
    """An image whose rows come in bands, from the top, so that nobody has to hold all of it."""

    height: int
    width: int
    channels: int
    dtype: np.dtype[Any]
    has_alpha: bool
    bands: Callable[[], Iterator[Band]]
    """Start again at the first row. What is wrong with the image may be raised on the way."""
    about: Attributes = field(default_factory=Attributes)

    @staticmethod
    def of(image: Image) -> ImageStream:
        """Return an image in memory as a stream of one band."""
        shape = image.height, image.width, image.channels
        return ImageStream(
            *shape,
            dtype=image.dtype,
            has_alpha=image.has_alpha,
            bands=lambda: iter([(image.pixels, image.alpha)]),
            about=image.about,
        )

    @property
    def bits(self) -> int:
        """Bits per channel: 8, 16, or 32 for floats."""
        return BITS[self.dtype]

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels and alpha."""
        samples = self.channels + self.has_alpha
        return self.height * self.width * samples * self.dtype.itemsize

    def collect(self) -> Image:
        """Return the whole image in memory. Raises OutOfMemoryError where it does not fit."""
        values = {f.name: getattr(self.about, f.name) for f in fields(Attributes)}
        bands = self.bands()
        first = next(bands)
        if len(first[0]) == self.height:
            next(bands, None)  # What follows the last row may be damaged.
            return Image(*first, **values)
        try:
            pixels = np.empty((self.height, self.width, self.channels), self.dtype)
            alpha = np.empty((self.height, self.width), self.dtype) if self.has_alpha else None
        except (MemoryError, ValueError) as error:  # numpy's own limit on sizes is a ValueError
            raise OutOfMemoryError(
                f"{self.width}x{self.height} pixels take {format_bytes(self.nbytes)}, which do not "
                "fit in memory",
                advice="result-too-large",
            ) from error
        start = 0
        for colors, cover in itertools.chain([first], bands):
            stop = start + len(colors)
            pixels[start:stop] = colors
            if alpha is not None and cover is not None:
                alpha[start:stop] = cover
            start = stop
        return Image(pixels, alpha, **values)


@dataclass(frozen=True)
class Encodable:
    """An image with depth, channels and metadata that its format supports."""

    rows: ImageStream
    metadata: Metadata
    hidden_color: bool = False

    def collect(self) -> Band:
        """Return pixels and alpha of the whole image."""
        image = self.rows.collect()
        return image.pixels, image.alpha


def regroup(bands: Iterable[Band], step: int) -> Iterator[Band]:
    """Yield the same rows in bands of `step` rows; the last band may have fewer."""
    held: list[Band] = []
    count = 0
    for pixels, alpha in bands:
        start = 0
        while start < len(pixels):
            stop = min(len(pixels), start + step - count)
            held.append((pixels[start:stop], None if alpha is None else alpha[start:stop]))
            count += stop - start
            start = stop
            if count == step:
                yield _concatenate(held)
                held, count = [], 0
    if held:
        yield _concatenate(held)


def _concatenate(bands: list[Band]) -> Band:
    if len(bands) == 1:
        return bands[0]
    alphas = [alpha for _, alpha in bands if alpha is not None]
    pixels = np.concatenate([pixels for pixels, _ in bands])
    return pixels, np.concatenate(alphas) if alphas else None


class RowWindow:
    """The pixels of an `ImageStream`, of which only the rows in use are held.

    Rows are asked for in ascending order; up to `lag` rows above those of the last request can be
    asked for again.
    """

    def __init__(self, image: ImageStream, lag: int = 0) -> None:
        self.shape = image.height, image.width, image.channels
        self.dtype = image.dtype
        self._bands = image.bands()
        self._held: list[Array] = []
        self._start = self._stop = 0
        self._lag = lag

    def __getitem__(self, rows: slice) -> Array:
        low, high, _ = rows.indices(self.shape[0])
        while self._stop < high:
            band = next(self._bands)[0]
            self._held.append(band)
            self._stop += len(band)
        while self._held and self._start + len(self._held[0]) <= low - self._lag:
            self._start += len(self._held.pop(0))
        if low < self._start:
            raise ValueError(f"row {low} is no longer held; the first one held is {self._start}")
        parts, top = [], self._start
        for band in self._held:
            if top < high and top + len(band) > low:
                parts.append(band[max(0, low - top) : high - top])
            top += len(band)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
