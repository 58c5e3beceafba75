"""Reading images: from files, bytes and streams of every format, from Pillow and from arrays."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as pillow

from realesr_cli.errors import ImageError, UnsupportedImageError
from realesr_cli.image import exif as exif_tags
from realesr_cli.image import ifd, plugins, png, tiff, xmp
from realesr_cli.image import pillow as pil
from realesr_cli.image.formats import DEFAULT_MAX_PIXELS
from realesr_cli.image.headers import (
    decode_deep_netpbm,
    describe_unsupported,
    parse_deep_netpbm,
    parse_webp,
)
from realesr_cli.image.pixels import to_uint8, to_unit_floats
from realesr_cli.image.source import Source, check_pixels, name_error, read_bytes
from realesr_cli.image.types import Decoded, Image, Metadata


def read_image(source: Source, *, max_pixels: int | None = DEFAULT_MAX_PIXELS) -> Image:
    """Read an image from a path, its bytes, or an open binary file.

    The orientation is applied, depth and channels are those of the file, and of several frames or
    pages the first is taken. The header is compared with `max_pixels` before anything is decoded;
    None means no limit.

    Raises UnreadableImageError for files that are missing, damaged, truncated or not images,
    UnsupportedImageError for kinds that are not supported, ImageTooLargeError above the limit, and
    MissingDependencyError if a library that the file needs cannot be loaded.
    """
    try:
        return apply_orientation(_decode(read_bytes(source, max_pixels), max_pixels))
    except ImageError as error:
        raise name_error(error, source) from error.__cause__


def read_rgb8(source: Source) -> NDArray[np.uint8]:
    """Read an image as 8-bit RGB (height, width, 3).

    More bits are rounded, gray becomes three equal channels, alpha is ignored. Raises what
    `read_image` raises.
    """
    pixels = to_uint8(read_image(source).pixels)
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    return np.ascontiguousarray(pixels)


def from_pil(image: pillow.Image) -> Image:
    """Convert a Pillow image with its metadata; its orientation is applied.

    Raises UnsupportedImageError for modes without a known range and UnreadableImageError if its
    file cannot be decoded.
    """
    with pil.capture_warnings() as captured:
        pil.load(image)
        found = pil.read_metadata(image)
        if found.exif is None:
            found = dataclasses.replace(found, exif=_exif_of_tags(image))
    planes = pil.to_planes(image, found.icc)
    found = dataclasses.replace(found, icc=planes.icc)
    notes = (*planes.notes, *captured.notes)
    return apply_orientation(Decoded(planes.pixels, planes.alpha, found, image.format, notes))


def from_array(array: Any) -> Image:
    """Convert an array (height, width) or (height, width, 1 to 4) in RGB order, alpha last.

    Takes uint8, uint16, or floats of any width in [0, 1]. Raises UnsupportedImageError for anything
    else.
    """
    array = np.asarray(array)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4) or 0 in array.shape:
        hint = ""
        if array.ndim == 3 and array.shape[0] in (1, 3, 4) and 0 not in array.shape:
            hint = "; this looks like (channels, height, width): move the first axis to the end"
        raise UnsupportedImageError(
            "expected an array of shape (height, width) or (height, width, 1 to 4), got "
            f"{array.shape}{hint}"
        )
    if array.dtype.kind == "f" and array.dtype.itemsize in (2, 4, 8):
        array = to_unit_floats(array)
    elif array.dtype.kind == "u" and array.dtype.itemsize in (1, 2):
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
    else:
        raise UnsupportedImageError(
            f"expected an array of uint8, uint16 or float in 0..1, got {array.dtype}"
        )
    colors = array.shape[2] - 1 + array.shape[2] % 2
    alpha = None if colors == array.shape[2] else np.ascontiguousarray(array[..., colors])
    return Image(np.ascontiguousarray(array[..., :colors]), alpha)


def _decode(data: bytes, limit: int | None) -> Decoded:
    """Decode with the decoder for the file's kind, which its first bytes decide."""
    reason = describe_unsupported(data)
    if reason is not None:
        raise UnsupportedImageError(f"this is {reason}")
    plugin = plugins.find_plugin(data)
    if plugin is not None:
        return plugins.open_with(plugin, data, limit).decode()
    if data.startswith(png.SIGNATURE):
        return png.decode(data, limit)
    if data.startswith(tiff.SIGNATURES):
        return tiff.decode(data, limit)
    deep = parse_deep_netpbm(data)
    if deep is not None:
        check_pixels(deep.height, deep.width, limit)
        return Decoded(decode_deep_netpbm(data, deep), None, Metadata(), "PPM")
    webp = parse_webp(data)
    if webp is not None:
        check_pixels(webp.height, webp.width, limit)
    return pil.decode(data, limit)


def _exif_of_tags(image: pillow.Image) -> bytes | None:
    """Return EXIF that Pillow has as tags only: those of a TIFF, or set by the host program."""
    try:
        tags = image.getexif()
        if not tags:
            return None
        block = ifd.parse(exif_tags.without_prefix(tags.tobytes()) or b"")
        main = block.directory(block.first)
        turned = exif_tags.ORIENTATION in main
        return block.data if turned else exif_tags.from_tiff(block, main)
    except Exception:  # Damaged tags make Pillow raise nearly anything.
        return None


def apply_orientation(decoded: Decoded) -> Image:
    """Apply the orientation to the pixels, and correct the metadata that states it."""
    found, notes = decoded.metadata, decoded.notes
    block, dpi = exif_tags.without_prefix(found.exif), found.dpi
    orientation = decoded.orientation or exif_tags.orientation_of(block, found.xmp)
    pixels = exif_tags.orient(decoded.pixels, orientation)
    alpha = None if decoded.alpha is None else exif_tags.orient(decoded.alpha, orientation)
    if block is not None:
        try:
            block = exif_tags.make_upright(block)
        except ifd.MalformedDirectoryError as error:
            block = None
            notes = (*notes, f"damaged EXIF left out: {error}")
    if dpi is not None and exif_tags.swaps_sides(orientation):
        dpi = dpi[1], dpi[0]
    packet = None if found.xmp is None else xmp.make_upright(found.xmp)
    return Image(
        pixels,
        alpha,
        icc=found.icc,
        exif=block,
        xmp=packet,
        dpi=dpi,
        format=decoded.format,
        notes=notes,
        text=found.text,
        lossless=decoded.lossless,
    )
