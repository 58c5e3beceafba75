"""Images read: from files, bytes and streams of every kind, from Pillow and from arrays."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as pillow

from realesr_cli.errors import ImageError, UnreadableImageError, UnsupportedImageError
from realesr_cli.image import exif as exif_tags
from realesr_cli.image import ifd, png, pnm, sniff, tiff
from realesr_cli.image import pillow as pil
from realesr_cli.image.depth import Array, to_uint8, unit_floats
from realesr_cli.image.exif import Metadata
from realesr_cli.image.formats import DEFAULT_MAX_PIXELS
from realesr_cli.image.source import Source, bytes_of, check_pixels, named, not_recognized
from realesr_cli.image.types import Image


def read_image(source: Source, *, max_pixels: int | None = DEFAULT_MAX_PIXELS) -> Image:
    """Read an image from a path, its bytes, or an open binary file.

    The orientation is applied, depth and channels are those of the file, and the first of several
    frames or pages is taken. `max_pixels` is compared with the header before anything is decoded;
    None lifts the limit.

    Raises UnreadableImage for what is missing, damaged, cut off or no image, UnsupportedImage
    for kinds not handled, ImageTooLarge above the limit, and MissingDependency where OpenCV is
    needed and cannot load.
    """
    try:
        return _read(bytes_of(source), max_pixels)
    except ImageError as error:
        raise named(error, source) from error.__cause__


def read_rgb8(source: Source) -> NDArray[np.uint8]:
    """An image as (height, width, 3) RGB of 8 bits: deeper ones rounded, gray as three equal
    channels, alpha left out. Raises what `read_image` raises."""
    pixels = to_uint8(read_image(source).pixels)
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    return np.ascontiguousarray(pixels)


def from_pil(image: pillow.Image) -> Image:
    """An image of Pillow's, orientation applied, with all it carries.

    Raises UnsupportedImage for modes without a known range and UnreadableImage where its file
    cannot be decoded.
    """
    with pil.capture_warnings() as heard:
        pil.load(image)
        found = pil.metadata(image)
        if found.exif is None:
            found = dataclasses.replace(found, exif=_exif_of_tags(image))
    planes = pil.planes(image, found.icc)
    found = dataclasses.replace(found, icc=planes.icc)
    notes = (*planes.notes, *heard.notes)
    return _upright(_Decoded(planes.pixels, planes.alpha, found, image.format, notes))


def from_array(array: Any) -> Image:
    """An image from (height, width) or (height, width, 1 to 4), RGB order, alpha last.

    uint8, uint16, or floats of any width in [0, 1]. Raises UnsupportedImage, saying what is wrong,
    for everything else.
    """
    array = np.asarray(array)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4) or 0 in array.shape:
        hint = ""
        if array.ndim == 3 and array.shape[0] in (1, 3, 4) and 0 not in array.shape:
            hint = "; this one looks like (channels, height, width): move the first axis to the end"
        raise UnsupportedImageError(
            f"an array of shape {array.shape} is no image: expected (height, width) or "
            f"(height, width, 1 to 4){hint}"
        )
    if array.dtype.kind == "f" and array.dtype.itemsize in (2, 4, 8):
        array = unit_floats(array)
    elif array.dtype.kind == "u" and array.dtype.itemsize in (1, 2):
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
    else:
        raise UnsupportedImageError(
            f"an array of {array.dtype} has no known range: make it uint8, uint16 or float in 0..1"
        )
    colors = array.shape[2] - 1 + array.shape[2] % 2
    alpha = None if colors == array.shape[2] else np.ascontiguousarray(array[..., colors])
    return Image(np.ascontiguousarray(array[..., :colors]), alpha)


@dataclass(frozen=True)
class _Decoded:
    """An image as its file has it; `turned` says that its orientation was applied already."""

    pixels: Array
    alpha: Array | None
    metadata: Metadata
    format: str | None
    notes: tuple[str, ...] = ()
    turned: bool = False


def _read(data: bytes, limit: int | None) -> Image:
    reason = sniff.unsupported(data)
    if reason is not None:
        raise UnsupportedImageError(f"this is {reason}")
    if data.startswith(png.SIGNATURE):
        return _upright(_decode_png(data, limit))
    if data.startswith(tiff.SIGNATURES):
        return _upright(_decode_tiff(data, limit))
    deep = pnm.read_header(data)
    if deep is not None:
        check_pixels(deep.height, deep.width, limit)
        return Image(pnm.read_deep(data, deep), format="PPM")
    size = sniff.webp_size(data)
    if size is not None:
        check_pixels(*size, limit)
    return _upright(_decode_pillow(data, limit))


def _decode_png(data: bytes, limit: int | None) -> _Decoded:
    header = png.read_header(data)
    check_pixels(header.height, header.width, limit)
    if header.bits < 16 or header.color_type == 0:
        return _decode_pillow(data, limit, sample_bits=header.bits)
    pixels, alpha, found, notes = png.read_deep(data, header)
    return _Decoded(pixels, alpha, found, "PNG", notes)


def _decode_tiff(data: bytes, limit: int | None) -> _Decoded:
    file = tiff.open_tiff(data)
    layout = file.layout
    check_pixels(layout.height, layout.width, limit)
    found = tiff.metadata(file)
    notes = (f"first page of {file.pages} taken",) if file.pages > 1 else ()
    if layout.deep and not layout.left_to_pillow:
        orientation = layout.orientation or exif_tags.orientation_of(None, found.xmp)
        pixels, alpha, more = tiff.read_deep(file)
        pixels = exif_tags.orient(pixels, orientation)
        alpha = None if alpha is None else exif_tags.orient(alpha, orientation)
        found = _upright_metadata(found, orientation)
        return _Decoded(pixels, alpha, found, "TIFF", (*notes, *more), turned=True)
    decoded = _decode_pillow(data, limit)
    # Pillow has turned the pixels; the tags still say how.
    orientation = layout.orientation or exif_tags.orientation_of(None, found.xmp)
    found = _upright_metadata(found, orientation)
    # Where a conversion has used up the profile, it stays away.
    found = dataclasses.replace(found, icc=decoded.metadata.icc)
    pixels = tiff.mended(layout, decoded.pixels)
    if pixels.dtype == np.uint8 and max(layout.bits) > 8:
        notes = (*notes, f"{max(layout.bits)} bits of a channel were reduced to 8")
    notes = (*notes, *decoded.notes)
    return _Decoded(pixels, decoded.alpha, found, "TIFF", notes, turned=True)


def _decode_pillow(data: bytes, limit: int | None, *, sample_bits: int = 8) -> _Decoded:
    with pil.capture_warnings() as heard:
        image = pil.open_quietly(BytesIO(data))
        if image is None:
            raise UnreadableImageError(not_recognized(data))
        check_pixels(image.height, image.width, limit)
        frames = () if image.format == "TIFF" else _frames_note(image)
        if image.format not in pil.QUIET_DECODERS:
            pil.load(image)
    pil.load(image)
    found = pil.metadata(image)
    planes = pil.planes(image, found.icc, sample_bits=sample_bits)
    notes = [*frames, *planes.notes, *heard.notes]
    lost = sniff.lost_bits(data)
    if lost > 8 and planes.pixels.dtype == np.uint8:
        notes.append(f"{lost} bits of a channel were reduced to 8")
    found = dataclasses.replace(found, icc=planes.icc)
    return _Decoded(planes.pixels, planes.alpha, found, image.format, tuple(notes))


def _frames_note(image: pillow.Image) -> tuple[str, ...]:
    try:
        frames = int(getattr(image, "n_frames", 1))
        image.seek(0)
    except Exception:  # A later frame is damaged; the first is all that is wanted.
        return ("first frame of an animation taken",)
    # Phones store depth and brightness maps behind the image, as MPO.
    what = "main image" if image.format == "MPO" else "first frame"
    return (f"{what} of {frames} taken",) if frames > 1 else ()


def _exif_of_tags(image: pillow.Image) -> bytes | None:
    """EXIF that Pillow holds as tags only: those of a TIFF, or set by the host program."""
    tags = image.getexif()
    if not tags:
        return None
    try:
        block = ifd.parse(exif_tags.without_prefix(tags.tobytes()) or b"")
        main = block.directory(block.first)
        turned = exif_tags.ORIENTATION in main
        return block.data if turned else exif_tags.from_tiff(block, main)
    except ifd.MalformedDirectoryError:
        return None


def _upright(decoded: _Decoded) -> Image:
    """The record, its pixels turned as the metadata says, and the metadata with them."""
    found, notes = decoded.metadata, decoded.notes
    block = exif_tags.without_prefix(found.exif)
    orientation = 1 if decoded.turned else exif_tags.orientation_of(block, found.xmp)
    pixels = exif_tags.orient(decoded.pixels, orientation)
    alpha = None if decoded.alpha is None else exif_tags.orient(decoded.alpha, orientation)
    if block is not None:
        try:
            block = exif_tags.upright(block)
        except ifd.MalformedDirectoryError as error:
            block = None
            notes = (*notes, f"damaged EXIF was left out: {error}")
    found = _upright_metadata(found, orientation)
    return Image(pixels, alpha, found.icc, block, found.xmp, found.dpi, decoded.format, notes)


def _upright_metadata(found: Metadata, orientation: int) -> Metadata:
    """Resolution and XMP of pixels that were turned."""
    dpi = found.dpi
    if dpi is not None and exif_tags.swaps_sides(orientation):
        dpi = dpi[1], dpi[0]
    xmp = None if found.xmp is None else exif_tags.upright_xmp(found.xmp)
    return dataclasses.replace(found, dpi=dpi, xmp=xmp)
