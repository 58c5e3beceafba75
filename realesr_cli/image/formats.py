"""Names, file extensions and limits of the image formats, and how an image shall be written."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import PurePath
from typing import Protocol

from realesr_cli.errors import (
    ConfigError,
    ImageTooLargeError,
    RealesrWarning,
    UnsupportedImageError,
)
from realesr_cli.settings import check, option
from realesr_cli.text import did_you_mean

DEFAULT_MAX_PIXELS = 250_000_000
"""Images with more pixels than this are refused on reading unless the caller raises the limit."""

WRITABLE = ("png", "jpg", "webp", "tiff", "avif", "bmp")

_ALIASES = {"jpeg": "jpg", "tif": "tiff"}

_WRITE_BY_EXTENSION = {
    ".png": "png",
    ".jpg": "jpg",
    ".jpeg": "jpg",
    ".jpe": "jpg",
    ".jfif": "jpg",
    ".webp": "webp",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".avif": "avif",
    ".bmp": "bmp",
    ".dib": "bmp",
}

# fmt: off
_READ_ONLY_EXTENSIONS = frozenset((
    ".apng", ".avifs", ".gif", ".ico", ".icns", ".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx",
    ".mpo", ".pbm", ".pcx", ".pfm", ".pgm", ".pnm", ".ppm", ".qoi", ".rgb", ".rgba", ".sgi",
    ".bw", ".tga", ".icb", ".vda", ".vst", ".dds", ".im", ".msp", ".psd", ".ras", ".xbm",
    ".xpm",
))
# fmt: on

_EXTENSION_OF = {
    "png": ".png",
    "jpg": ".jpg",
    "webp": ".webp",
    "tiff": ".tif",
    "avif": ".avif",
    "bmp": ".bmp",
}

_SOURCES = {
    "JPEG": "jpg",
    "MPO": "jpg",
    "PNG": "png",
    "WEBP": "webp",
    "TIFF": "tiff",
    "AVIF": "avif",
    "BMP": "bmp",
    "DIB": "bmp",
}

_SIDE = {
    "png": 2**31 - 1,
    "jpg": 65_535,
    "webp": 16_383,
    "tiff": 2**31 - 1,
    # AV1 itself goes to 65,536, but libavif, and with it nearly every reader, stops here.
    "avif": 32_768,
    "bmp": 2**31 - 1,
}

_AREA = {"avif": 2**28}
"""Pixels in all; libavif's own limit on reading."""

_BYTES = {"tiff": 2**32 - 2**24, "bmp": 2**32 - 2**16}
"""Bytes of uncompressed pixels where offsets have 32 bits; the rest is left to the metadata."""

_QUALITY = {"jpg": 95, "webp": 90, "avif": 85}


@dataclass(frozen=True)
class WriteSettings:
    """How an image is written.

    Raises ConfigError for values outside the limits and for combinations that cannot be meant.
    """

    format: str | None = option(
        None,
        help="Format of the result; that of the file's extension if not given.",
        choices=(*WRITABLE, *_ALIASES),
    )
    quality: int | None = option(
        None,
        help="Quality of jpg (95 if not given), webp (90) and avif (85).",
        low=1,
        high=100,
    )
    lossless: bool = option(False, help="Write webp without loss (png, tiff and bmp always are).")
    strip_metadata: bool = option(
        False, help="Leave out EXIF, XMP, resolution and color profile (colors become sRGB)."
    )
    compress_level: int | None = option(
        None, help="Effort of the compression of png and tiff, 0 (none) to 9.", low=0, high=9
    )

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Raise ConfigError where the settings cannot be used."""
        check(self)
        if self.format is not None:
            _check_lossless(canonical(self.format), self)


class FormatFields(Protocol):
    """What `default_extension` needs to know about an image."""

    @property
    def format(self) -> str | None: ...
    @property
    def bits(self) -> int: ...
    @property
    def has_alpha(self) -> bool: ...


def canonical(name: str) -> str:
    """The one name of a writable format: `JPEG` and `jpg` are `jpg`, `tif` is `tiff`.

    Raises UnsupportedImage for a format that cannot be written.
    """
    lowered = name.lower().lstrip(".")
    lowered = _ALIASES.get(lowered, lowered)
    if lowered not in WRITABLE:
        near = did_you_mean(lowered, WRITABLE)
        raise UnsupportedImageError(
            f"{name!r} is no format that can be written; choose one of {', '.join(WRITABLE)}{near}"
        )
    return lowered


def format_of(path: PurePath | str, settings: WriteSettings | None = None) -> str:
    """The format a file of this name is written in; an explicit `settings.format` wins.

    Raises UnsupportedImage where neither the settings nor the extension tell.
    """
    if settings is not None and settings.format is not None:
        return canonical(settings.format)
    suffix = PurePath(path).suffix.lower()
    if suffix in _WRITE_BY_EXTENSION:
        return _WRITE_BY_EXTENSION[suffix]
    known = ", ".join(_EXTENSION_OF.values())
    what = f"the extension {suffix!r}" if suffix else "a name without extension"
    raise UnsupportedImageError(
        f"{path}: {what} is no format that can be written; use one of {known}, or name a format"
    )


def extension_of(format: str) -> str:
    """The usual extension, with its dot, of a writable format."""
    return _EXTENSION_OF[canonical(format)]


def default_extension(image: FormatFields) -> str:
    """The extension a result gets when nobody says: that of the source where it can hold the
    image without loss of depth or alpha and is of a common kind, else `.png`."""
    name = _SOURCES.get((image.format or "").upper(), "png")
    if image.bits > 8 and name not in ("png", "tiff"):
        name = "png"
    if image.has_alpha and name in ("jpg", "bmp"):
        name = "png"
    return _EXTENSION_OF[name]


def is_image(path: PurePath | str) -> bool:
    """Whether a scan of a folder takes this file for an image, by its extension alone.

    Hidden files (a leading dot) are not taken.
    """
    path = PurePath(path)
    suffix = path.suffix.lower()
    known = suffix in _WRITE_BY_EXTENSION or suffix in _READ_ONLY_EXTENSIONS
    return known and not path.name.startswith(".")


def quality_of(format: str, settings: WriteSettings) -> int:
    """The quality to write with: the one asked for, or the default of the format."""
    return settings.quality if settings.quality is not None else _QUALITY[format]


def check_settings(format: str, settings: WriteSettings) -> None:
    """Raise ConfigError, or warn, where a setting makes no sense for the format."""
    format = canonical(format)
    _check_lossless(format, settings)
    if settings.quality is not None and format not in _QUALITY:
        _warn(f"quality has no effect on {format}, which is written without loss")
    if settings.compress_level is not None and format not in ("png", "tiff"):
        _warn(f"the compression level has no effect on {format}")


def _check_lossless(format: str, settings: WriteSettings) -> None:
    if settings.lossless and format in ("jpg", "avif"):
        raise ConfigError(
            f"{format} cannot be written without loss: choose png, webp or tiff, or drop lossless"
        )


def check_size(format: str, height: int, width: int, *, bytes_per_pixel: int = 4) -> None:
    """Raise ImageTooLarge where an image does not fit the format, before any work is done.

    `bytes_per_pixel` counts all channels (8 for 16-bit RGBA).
    """
    format = canonical(format)
    size = f"{width} x {height} pixels"
    other = "write png" if format != "png" else "make it smaller"
    side = _SIDE[format]
    if max(height, width) > side:
        raise ImageTooLargeError(
            f"{size} do not fit {format}, whose sides end at {side:,}: {other}"
        )
    area = _AREA.get(format)
    if area is not None and height * width > area:
        raise ImageTooLargeError(
            f"{size} do not fit {format}, which ends at {area:,} in all: {other}"
        )
    size_limit = _BYTES.get(format)
    if size_limit is not None and height * width * bytes_per_pixel > size_limit:
        raise ImageTooLargeError(f"{size} do not fit {format}, whose files end at 4 GiB: {other}")


def _warn(text: str) -> None:
    warnings.warn(text, RealesrWarning, stacklevel=4)
