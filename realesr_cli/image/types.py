"""The image as the package passes it around: pixels, alpha and metadata."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from realesr_cli.errors import UnsupportedImageError
from realesr_cli.image.pixels import BITS, Array

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

    from realesr_cli.image.formats import WriteSettings

TextChunks = tuple[tuple[bytes, bytes], ...]
"""Kind (tEXt, zTXt, iTXt) and content of the text chunks of a PNG, as stored."""


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
class Encodable:
    """An image with depth, channels and metadata that its format supports."""

    pixels: Array
    alpha: Array | None
    metadata: Metadata
    hidden_color: bool = False


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


@dataclass(frozen=True, eq=False)
class Image:
    """An image in memory.

    `pixels` is (height, width, channels) with one channel (gray) or three (RGB), and `alpha` is
    (height, width) or None. Both have the same dtype: uint8, uint16, or float32 in [0, 1]. The
    pixels are upright: the file's orientation is applied. Two images are equal only if they are
    the same object.

    Raises UnsupportedImageError for other shapes and dtypes.
    """

    pixels: Array
    alpha: Array | None = None
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
