"""The image formats that can be written, one record each, and how an image is written."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from realesr_cli.errors import (
    ConfigError,
    ImageTooLargeError,
    RealesrWarning,
    UnsupportedImageError,
)
from realesr_cli.settings import check, option
from realesr_cli.text import did_you_mean

if TYPE_CHECKING:
    from realesr_cli.image.types import Encodable

DEFAULT_MAX_PIXELS = 250_000_000
"""Images with more pixels are refused on reading unless the caller raises the limit."""

_UNLIMITED = 2**31 - 1


@dataclass(frozen=True)
class EncodeOptions:
    """How an encoder works; each uses what its format knows."""

    quality: int
    lossless: bool
    compress_level: int


Encode = Callable[[BinaryIO, "Encodable", EncodeOptions], None]
"""Write an image to an open file."""


@dataclass(frozen=True)
class Format:
    """Everything the package knows about a format that it writes."""

    name: str
    encode: Encode
    extensions: tuple[str, ...]
    """Extensions of its files; the first is used for results."""
    aliases: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    """Pillow's names of the source formats whose results are written in this format."""
    bits: tuple[int, ...] = (8,)
    """Bits per channel that it stores; 32 are floats."""
    alpha: bool = True
    default_quality: int | None = None
    """Default of lossy compression; None for a format that is always lossless."""
    lossless_option: bool = False
    """Whether a lossy format can be lossless instead."""
    compress_level: bool = False
    max_side: int = _UNLIMITED
    max_pixels: int | None = None
    max_pixel_bytes: int | None = None
    """Bytes of uncompressed pixels, if offsets in its files have 32 bits."""
    icc: bool = True
    exif_xmp: bool = True
    max_segment: int | None = None
    """Largest EXIF block and XMP packet in bytes, with their headers."""
    banded: bool = False
    """Whether it is written band by band, so that memory does not grow with the image."""
    text: bool = False
    """Whether it stores the text chunks of a PNG."""


def _encoders() -> Any:
    """Import the encoders when one is called: help pages need neither numpy nor Pillow."""
    from realesr_cli.image import encode

    return encode


FORMATS = (
    Format(
        "png",
        lambda *args: _encoders().encode_png(*args),
        extensions=(".png",),
        sources=("PNG",),
        bits=(8, 16),
        compress_level=True,
        banded=True,
        text=True,
    ),
    Format(
        "jpg",
        lambda *args: _encoders().encode_jpg(*args),
        extensions=(".jpg", ".jpeg", ".jpe", ".jfif"),
        aliases=("jpeg",),
        sources=("JPEG", "MPO", "HEIF"),
        alpha=False,
        banded=True,
        default_quality=95,
        max_side=65_535,
        max_segment=65_533,
    ),
    Format(
        "webp",
        lambda *args: _encoders().encode_webp(*args),
        extensions=(".webp",),
        sources=("WEBP",),
        default_quality=90,
        lossless_option=True,
        max_side=16_383,
    ),
    Format(
        "tiff",
        lambda *args: _encoders().encode_tiff(*args),
        extensions=(".tif", ".tiff"),
        aliases=("tif",),
        sources=("TIFF",),
        bits=(8, 16, 32),
        compress_level=True,
        banded=True,
    ),
    Format(
        "avif",
        lambda *args: _encoders().encode_avif(*args),
        extensions=(".avif",),
        sources=("AVIF",),
        default_quality=85,
        # AV1 itself allows 65,536, but libavif, and so nearly every reader, allows only this.
        max_side=32_768,
        max_pixels=2**28,
    ),
    Format(
        "jxl",
        lambda *args: _encoders().encode_jxl(*args),
        extensions=(".jxl",),
        sources=("JXL",),
        default_quality=90,
        lossless_option=True,
        max_side=2**18,  # level 5 of the codestream, which every decoder supports
        max_pixels=2**28,
        icc=False,
    ),
    Format(
        "bmp",
        lambda *args: _encoders().encode_bmp(*args),
        extensions=(".bmp", ".dib"),
        sources=("BMP", "DIB"),
        alpha=False,
        max_pixel_bytes=2**32 - 2**16,
        icc=False,
        exif_xmp=False,
    ),
)

WRITABLE = tuple(format.name for format in FORMATS)

_BY_NAME = {name: format for format in FORMATS for name in (format.name, *format.aliases)}
_BY_EXTENSION = {extension: format for format in FORMATS for extension in format.extensions}
_BY_SOURCE = {source: format for format in FORMATS for source in format.sources}

# fmt: off
_OTHER_EXTENSIONS = frozenset((
    # read by Pillow
    ".apng", ".avifs", ".gif", ".ico", ".icns", ".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx",
    ".mpo", ".pbm", ".pcx", ".pfm", ".pgm", ".pnm", ".ppm", ".qoi", ".rgb", ".rgba", ".sgi",
    ".bw", ".tga", ".icb", ".vda", ".vst", ".dds", ".im", ".msp", ".psd", ".ras", ".xbm",
    ".xpm",
    # read by optional libraries: HEIC, camera raw
    ".heic", ".heif", ".hif",
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".kdc", ".mrw", ".nef",
    ".nrw", ".orf", ".pef", ".raf", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
    # not supported: reading them fails with a message that says what to do
    ".exr", ".hdr", ".psb", ".xcf",
))
# fmt: on


@dataclass(frozen=True)
class WriteSettings:
    """How an image is written.

    Raises ConfigError for values outside the limits and for combinations that contradict each
    other.
    """

    format: str | None = option(
        None,
        help="Output format; by default that of the file's extension.",
        choices=tuple(_BY_NAME),
    )
    quality: int | None = option(
        None,
        help="Quality of lossy formats; by default "
        + ", ".join(f"{f.default_quality} for {f.name}" for f in FORMATS if f.default_quality)
        + ".",
        low=1,
        high=100,
    )
    lossless: bool = option(
        False,
        help="Write "
        + " and ".join(format.name for format in FORMATS if format.lossless_option)
        + " losslessly.",
    )
    max_bytes: int | None = option(
        None,
        help="Largest file size; lossy formats use the highest quality that fits.",
        low=1,
        size=True,
    )
    strip_metadata: bool = option(
        False, help="Omit EXIF, XMP, texts, resolution and color profile (colors become sRGB)."
    )
    compress_level: int | None = option(
        None,
        help="Compression level of png and tiff: 0 (none) to 9 (smallest), 6 by default.",
        low=0,
        high=9,
    )

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Raise ConfigError if the settings cannot be used."""
        check(self)
        if self.format is not None:
            _check_lossless(find_format(self.format), self)


class FormatFields(Protocol):
    """What `default_extension` needs to know about an image."""

    @property
    def format(self) -> str | None: ...
    @property
    def bits(self) -> int: ...
    @property
    def has_alpha(self) -> bool: ...


def find_format(name: str) -> Format:
    """Return the format of a name or alias: `jpg` for `JPEG` and `.jpg`.

    Raises UnsupportedImageError for a format that cannot be written.
    """
    format = _BY_NAME.get(name.lower().lstrip("."))
    if format is None:
        near = did_you_mean(name.lower().lstrip("."), list(_BY_NAME))
        raise UnsupportedImageError(
            f"cannot write format {name!r}; expected one of {', '.join(WRITABLE)}{near}"
        )
    return format


def canonical(name: str) -> str:
    """Return the name of a writable format, `jpg` for `JPEG`; raises what `find_format` raises."""
    return find_format(name).name


def format_of(path: PurePath | str, settings: WriteSettings | None = None) -> str:
    """Return the name of the format that a file is written in.

    That of `settings` if it names one, else that of the extension. Raises UnsupportedImageError if
    the extension is not that of a writable format.
    """
    if settings is not None and settings.format is not None:
        return canonical(settings.format)
    suffix = PurePath(path).suffix.lower()
    if suffix in _BY_EXTENSION:
        return _BY_EXTENSION[suffix].name
    expected = ", ".join(format.extensions[0] for format in FORMATS)
    raise UnsupportedImageError(
        f"{path}: cannot write a file with extension {suffix!r}; expected one of {expected}"
    )


def extension_of(format: str) -> str:
    """Return the usual extension of a writable format, with its dot."""
    return find_format(format).extensions[0]


def default_extension(image: FormatFields) -> str:
    """Return the extension of a result if the caller names none.

    That of the source if it is a common format that stores the image's depth and alpha, else
    `.png`.
    """
    png = find_format("png")
    format = _BY_SOURCE.get((image.format or "").upper(), png)
    if (image.bits > 8 and 16 not in format.bits) or (image.has_alpha and not format.alpha):
        format = png
    return format.extensions[0]


def is_image(path: PurePath | str) -> bool:
    """Return whether a file in a folder is an image, by its extension alone.

    This includes formats that cannot be read, so that nobody believes they were done. Hidden files
    (with a leading dot) are not included.
    """
    path = PurePath(path)
    suffix = path.suffix.lower()
    known = suffix in _BY_EXTENSION or suffix in _OTHER_EXTENSIONS
    return known and not path.name.startswith(".")


def check_settings(format: str, settings: WriteSettings) -> None:
    """Raise ConfigError if a setting contradicts the format; warn if it has no effect."""
    found = find_format(format)
    _check_lossless(found, settings)
    if settings.quality is not None and found.default_quality is None:
        _warn(f"quality has no effect on {found.name}, which is lossless")
    if settings.compress_level is not None and not found.compress_level:
        _warn(f"compress_level has no effect on {found.name}")


def _check_lossless(format: Format, settings: WriteSettings) -> None:
    if not settings.lossless or format.default_quality is None or format.lossless_option:
        return
    others = [f.name for f in FORMATS if f.default_quality is None or f.lossless_option]
    raise ConfigError(
        f"{format.name} cannot be lossless; choose one of {', '.join(others)}, or omit lossless"
    )


def check_size(format: str, height: int, width: int, *, bytes_per_pixel: int = 4) -> None:
    """Raise ImageTooLargeError for too large an image; a pixel has all channels and alpha."""
    found = find_format(format)
    size = height * width * bytes_per_pixel
    if max(height, width) > found.max_side:
        limit = f"at most {found.max_side:,} pixels per side"
    elif found.max_pixels is not None and height * width > found.max_pixels:
        limit = f"at most {found.max_pixels:,} pixels"
    elif found.max_pixel_bytes is not None and size > found.max_pixel_bytes:
        limit = "files of at most 4 GiB"
    else:
        return
    others = [f.name for f in FORMATS if f.banded and max(height, width) <= f.max_side]
    text = f"{width} x {height} pixels are too large for {found.name}, which supports {limit}; "
    text += f"write {' or '.join(others)}, or " if others else ""
    raise ImageTooLargeError(f"{text}make it smaller")


def _warn(text: str) -> None:
    warnings.warn(text, RealesrWarning, stacklevel=4)
