"""The image as the package passes it around: pixels, alpha and what belongs to them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from realesr_cli.errors import UnsupportedImageError
from realesr_cli.image.depth import BITS, Array
from realesr_cli.image.formats import WriteSettings

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage


@dataclass(frozen=True, eq=False)
class Image:
    """An image in memory.

    `pixels` is (height, width, channels) with one channel (gray) or three (RGB), and `alpha` is
    (height, width) or None; both are uint8, uint16 or float32, floats lying in [0, 1]. `exif` is
    the EXIF block from its byte order mark on, its orientation already applied to the pixels.
    `format` is Pillow's name of the source's format, and `notes` tell what the user should know
    about how the image was read. Two records are equal only when they are the same object.

    Raises UnsupportedImage where shapes or types are others.
    """

    pixels: Array
    alpha: Array | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    format: str | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape, dtype = self.pixels.shape, self.pixels.dtype
        if len(shape) != 3 or shape[2] not in (1, 3) or 0 in shape or dtype not in BITS:
            raise UnsupportedImageError(
                f"pixels are {dtype} of shape {shape}; an image is uint8, uint16 or float32 of "
                "shape (height, width, 1 or 3)"
            )
        alpha = self.alpha
        if alpha is not None and (alpha.shape != shape[:2] or alpha.dtype != dtype):
            raise UnsupportedImageError(
                f"alpha is {alpha.dtype} of shape {alpha.shape}; these pixels need {dtype} of "
                f"shape {shape[:2]}"
            )

    @property
    def height(self) -> int:
        """Rows of pixels."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Columns of pixels."""
        return int(self.pixels.shape[1])

    @property
    def channels(self) -> int:
        """Channels of color, without alpha: 1 or 3."""
        return int(self.pixels.shape[2])

    @property
    def gray(self) -> bool:
        """Whether there is one channel of color."""
        return self.channels == 1

    @property
    def bits(self) -> int:
        """Bits of a channel: 8, 16, or 32 for floats."""
        return BITS[self.pixels.dtype]

    @property
    def has_alpha(self) -> bool:
        """Whether there is an alpha channel."""
        return self.alpha is not None

    def with_pixels(self, pixels: Array, alpha: Array | None) -> Image:
        """The same image with other pixels (and alpha), all that belongs to it kept."""
        return dataclasses.replace(self, pixels=pixels, alpha=alpha)

    def save(self, path: Path | str, write: WriteSettings | None = None) -> None:
        """Write a file, whole or not at all.

        The extension names the format unless `write` does. Raises UnsupportedImage, ConfigError
        or ImageWriteError; see `realesr_cli.image.write.write_image`.
        """
        from realesr_cli.image.write import write_image

        write_image(self, path, write or WriteSettings())

    def to_pil(self) -> PillowImage:
        """The image as Pillow has it, with its profile, EXIF, XMP and resolution in `info`.

        Pillow has no 16-bit color: such images are rounded to 8 bits with a RealesrWarning.
        """
        from realesr_cli.image.write import to_pillow

        return to_pillow(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """(height, width) of a gray image, else (height, width, channels), alpha being last."""
        if self.alpha is not None:
            array = np.dstack([self.pixels, self.alpha])
        else:
            array = self.pixels[..., 0] if self.gray else self.pixels
        return np.array(array, dtype=dtype, copy=copy)
