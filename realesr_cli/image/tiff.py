"""TIFF files: metadata, and the pixels of the deep kinds that Pillow reduces or refuses.

Source: TIFF 6.0, Adobe's TIFF technical notes (deflate, floating-point predictor).

libtiff, as Pillow has it, decompresses everything, but Pillow has no mode for most kinds of samples
with more than 8 bits. So those strips and tiles are given to it as 8-bit gray of as many columns as
they have bytes per row, and predictor and byte order are undone here. Of 1,120 combinations of
compression, predictor, dtype, channels, layout and byte order this reads all; tifffile without
imagecodecs reads 504, and OpenCV 216, but 108 others wrongly.
"""

from __future__ import annotations

import dataclasses
import itertools
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np

from realesr_cli.errors import ImageError, UnreadableImageError, UnsupportedImageError
from realesr_cli.image import exif as exif_tags
from realesr_cli.image import ifd
from realesr_cli.image import pillow as pil
from realesr_cli.image.pixels import Array, to_unit_floats, unmultiply
from realesr_cli.image.source import check_pixels
from realesr_cli.image.types import Decoded, Metadata

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

ICC, XMP = 34675, 700
_UINT, _FLOAT = 1, 3
_WHITE_IS_ZERO, _RGB = 0, 2
_PREMULTIPLIED = 1

BYTE_COMPRESSIONS = (1, 5, 8, 32773, 32946, 34925, 50000)
"""None, LZW, deflate, PackBits, deflate, LZMA and Zstandard; others compress samples."""

_MAX_SAMPLES = 16
_MAX_PAGES = 10_000
_MAX_RATIO = 2**16
"""No compression makes more of a byte: Zstandard 32,768, LZW 2,730, deflate 1,032."""

_BAND_BYTES = 2**24


@dataclass(frozen=True)
class TiffLayout:
    """How the first image of a file is stored."""

    height: int
    width: int
    bits: tuple[int, ...]
    photometric: int
    compression: int
    samples: int
    planar: bool
    predictor: int
    sample_format: int
    extra: tuple[int, ...]
    orientation: int
    """As in EXIF; 0 if it is not stated."""
    fill_order: int
    tiled: bool
    segment: tuple[int, int]
    """Height and width of a strip or tile."""
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def deep(self) -> bool:
        """Whether the samples are 16-bit integers or floats, in gray or RGB."""
        kinds = {_UINT: (16,), _FLOAT: (16, 32, 64)}.get(self.sample_format, ())
        return len(set(self.bits)) == 1 and self.bits[0] in kinds and self.photometric in (0, 1, 2)

    @property
    def colors(self) -> int:
        """Number of color channels."""
        return 3 if self.photometric == _RGB else 1

    @property
    def alpha_place(self) -> int | None:
        """Index of alpha among the channels besides color; None if there is no alpha."""
        if self.photometric not in (0, 1, 2):
            return None
        spare = self.samples - self.colors
        # If a file does not say what its only extra channel is, it is alpha more often than not.
        kinds = self.extra[:spare] or ((2,) if spare == 1 else ())
        return next((i for i, kind in enumerate(kinds) if kind in (1, 2)), None)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the samples, in native byte order."""
        return np.dtype(f"{'f' if self.sample_format == _FLOAT else 'u'}{self.bits[0] // 8}")


@dataclass(frozen=True)
class TiffFile:
    """A TIFF whose first directory has been read."""

    block: ifd.IfdBlock
    main: ifd.Directory
    layout: TiffLayout


def open_tiff(data: bytes) -> TiffFile:
    """Read the first directory. Raises UnreadableImageError if it is damaged."""
    try:
        block = ifd.parse(data)
        main = block.directory(block.first)
        if sum(entry.size for entry in main.entries.values()) > 2 * len(data):
            raise ifd.MalformedDirectoryError("its values overlap")  # Pillow would read each.
        return TiffFile(block, main, _parse_layout(block, main))
    except ifd.MalformedDirectoryError as error:
        raise UnreadableImageError(f"the TIFF is damaged: {error}") from None


def count_pages(file: TiffFile) -> int:
    """Return the number of directories, of which only the links are read."""
    return file.block.count_directories(file.main.position, _MAX_PAGES)


def read_metadata(file: TiffFile) -> Metadata:
    """Return profile, EXIF, XMP and resolution of a file; EXIF that is damaged is left out."""
    entries = file.main.entries
    icc = entries[ICC].data if ICC in entries else None
    xmp = entries[XMP].data.rstrip(b"\0") if XMP in entries else None
    try:
        exif = exif_tags.from_tiff(file.block, file.main)
    except ifd.MalformedDirectoryError:
        exif = None
    dpi = pil.parse_dpi(exif_tags.resolution(file.block, file.main))
    return Metadata(icc or None, exif, xmp or None, dpi)


def decode(data: bytes, limit: int | None) -> Decoded:
    """Decode the first page of a TIFF of at most `limit` pixels; raises an ImageError."""
    file = open_tiff(data)
    layout = file.layout
    check_pixels(layout.height, layout.width, limit)
    metadata, pages = read_metadata(file), count_pages(file)
    orientation = orientation_of(layout, metadata)
    notes = (f"first page of {pages} taken",) if pages > 1 else ()
    if layout.deep or _is_foreign(file):
        pixels, alpha, more = _decode_deep(file)
        return Decoded(pixels, alpha, metadata, "TIFF", (*notes, *more), orientation)
    decoded = pil.decode(data, limit)
    # Pillow has turned the pixels. If it used the profile, that no longer describes them.
    metadata = dataclasses.replace(metadata, icc=decoded.metadata.icc)
    if metadata.dpi is not None and exif_tags.swaps_sides(orientation):
        metadata = dataclasses.replace(metadata, dpi=metadata.dpi[::-1])
    pixels = decoded.pixels
    if pixels.dtype == np.uint16 and layout.bits[0] == 12:  # Pillow does not scale 12 bits.
        pixels = pixels << 4 | pixels >> 8
        if layout.photometric == _WHITE_IS_ZERO:
            pixels = 65535 - pixels
    if pixels.dtype == np.uint8 and max(layout.bits) > 8:
        notes = (*notes, f"{max(layout.bits)} bits per channel reduced to 8")
    notes = (*notes, *decoded.notes)
    return Decoded(pixels, decoded.alpha, metadata, "TIFF", notes, orientation=1)


def _is_foreign(file: TiffFile) -> bool:
    """Return whether Pillow cannot open 8-bit gray or RGB: a big-endian BigTIFF."""
    layout = file.layout
    kind = set(layout.bits), layout.sample_format, file.block.big, file.block.order
    return kind == ({8}, _UINT, True, ">") and layout.photometric <= 2 and 1 not in layout.extra


def orientation_of(layout: TiffLayout, metadata: Metadata) -> int:
    """Return the orientation of the pixels, as in EXIF."""
    return layout.orientation or exif_tags.orientation_of(None, metadata.xmp)


def is_complete(data: bytes) -> bool:
    """Return whether every strip or tile of the first image lies inside the file."""
    try:
        _check_segments(open_tiff(data), 1)
    except ImageError:
        return False
    return True


def _parse_layout(block: ifd.IfdBlock, main: ifd.Directory) -> TiffLayout:
    height, width = block.number(main, 257, 0), block.number(main, 256, 0)
    if height <= 0 or width <= 0:
        raise ifd.MalformedDirectoryError("it states no size")
    samples = block.number(main, 277, 1)
    tiled = 322 in main
    if tiled:
        segment = (block.number(main, 323, 0), block.number(main, 322, 0))
    else:
        segment = (min(block.number(main, 278, height), height), width)
    if min(segment) <= 0:
        raise ifd.MalformedDirectoryError("its strips or tiles have no size")
    return TiffLayout(
        height=height,
        width=width,
        bits=block.numbers(main, 258) or (1,),
        photometric=block.number(main, 262, 1),
        compression=block.number(main, 259, 1),
        samples=samples,
        planar=block.number(main, 284, 1) == 2 and samples > 1,
        predictor=block.number(main, 317, 1),
        sample_format=block.number(main, 339, _UINT),
        extra=block.numbers(main, 338),
        orientation=block.number(main, exif_tags.ORIENTATION, 0),
        fill_order=block.number(main, 266, 1),
        tiled=tiled,
        segment=segment,
        offsets=block.numbers(main, 324 if tiled else 273),
        sizes=block.numbers(main, 325 if tiled else 279),
    )


def _decode_deep(file: TiffFile) -> tuple[Array, Array | None, tuple[str, ...]]:
    """Decode pixels (height, width, 1 or 3), alpha and notes; the orientation is not applied."""
    layout = file.layout
    colors, place = layout.colors, layout.alpha_place
    if not colors <= layout.samples <= _MAX_SAMPLES:
        raise UnsupportedImageError(
            f"expected a TIFF with {colors} to {_MAX_SAMPLES} channels, got {layout.samples}"
        )
    if layout.compression not in BYTE_COMPRESSIONS:
        raise UnsupportedImageError(
            f"TIFF with {layout.bits[0]} bits per channel and compression {layout.compression} is "
            "not supported; save it uncompressed or with deflate (ZIP)"
        )
    check_extent(file)
    samples = _read_samples(file, [*range(colors), *([] if place is None else [colors + place])])
    pixels = samples[..., :colors]
    if layout.photometric == _WHITE_IS_ZERO:
        top = 1 if layout.sample_format == _FLOAT else 2 ** layout.bits[0] - 1
        pixels = np.asarray(top - pixels, pixels.dtype)
    alpha: Array | None = None
    if place is not None:
        alpha = np.ascontiguousarray(samples[..., colors])
        premultiplied = layout.extra[place : place + 1] == (_PREMULTIPLIED,)
        pixels = unmultiply(pixels, alpha) if premultiplied else pixels
    left_out = layout.samples - samples.shape[2]
    notes = (f"{left_out} channels besides color and alpha left out",) if left_out else ()
    return np.ascontiguousarray(pixels), alpha, notes


def check_extent(file: TiffFile) -> None:
    """Raise UnreadableImageError if strips or tiles are missing or far too small.

    Before memory is allocated: a file of 195 bytes can claim to contain 27 GiB.
    """
    layout = file.layout
    down = -(-layout.height // layout.segment[0])
    across = -(-layout.width // layout.segment[1])
    _check_segments(file, down * across * (layout.samples if layout.planar else 1))
    needed = layout.height * layout.width * layout.samples * layout.dtype.itemsize
    if needed > sum(layout.sizes) * (1 if layout.compression == 1 else _MAX_RATIO):
        raise UnreadableImageError("the TIFF is truncated: pixels are missing")


def _check_segments(file: TiffFile, count: int) -> None:
    layout = file.layout
    if len(layout.offsets) < count or len(layout.sizes) < count:
        raise UnreadableImageError("the TIFF is damaged: strips or tiles are missing")
    for start, size in zip(layout.offsets, layout.sizes, strict=False):
        if start < 0 or size < 0 or start + size > len(file.block.data):
            raise UnreadableImageError("the TIFF is truncated: pixels are missing")


def _read_samples(file: TiffFile, wanted: Sequence[int]) -> Array:
    """Return the wanted samples as integers or float32 (height, width, len(wanted))."""
    layout = file.layout
    floats = layout.sample_format == _FLOAT
    result = np.empty((layout.height, layout.width, len(wanted)), "f4" if floats else layout.dtype)
    if not layout.planar:
        for start, band in read_bands(file, 0, layout.samples):
            band = band[..., wanted]
            result[start : start + len(band)] = to_unit_floats(band) if floats else band
        return result
    for place, sample in enumerate(wanted):
        for start, band in read_bands(file, sample, 1):
            rows = slice(start, start + len(band))
            result[rows, :, place] = (to_unit_floats(band) if floats else band)[..., 0]
    return result


def read_bands(file: TiffFile, plane: int, depth: int) -> Iterator[tuple[int, Array]]:
    """Yield the first row and the samples (rows, width, depth) of bands of a plane."""
    layout = file.layout
    rows, columns = layout.segment
    down, across = -(-layout.height // rows), -(-layout.width // columns)
    row_bytes = across * columns * depth * layout.dtype.itemsize
    step = max(1, _BAND_BYTES // (rows * row_bytes))
    for row in range(0, down, step):
        stop = min(row + step, down)
        start, end = row * rows, min(stop * rows, layout.height)
        # The last strip ends with the image; tiles are always whole.
        height = (stop - row) * rows if layout.tiled else end - start
        segments = range((plane * down + row) * across, (plane * down + stop) * across)
        raw = _decompress(file, segments, height, row_bytes)
        band = _undo_predictor(file, raw.reshape(height, across, -1), depth)
        yield start, band.reshape(height, -1, depth)[: end - start, : layout.width]


def _decompress(file: TiffFile, segments: range, height: int, row_bytes: int) -> Array:
    """Return the bytes (height, row_bytes) of consecutive strips or tiles."""
    layout, data = file.layout, file.block.data
    parts = [data[layout.offsets[i] : layout.offsets[i] + layout.sizes[i]] for i in segments]
    image = pil.open_image(BytesIO(_wrap(layout, parts, height, row_bytes)))
    if image is None:
        raise UnsupportedImageError(
            f"this build of Pillow cannot decompress TIFF with compression {layout.compression}"
        )
    pil.load(image)
    return np.asarray(image)


def _wrap(layout: TiffLayout, parts: Sequence[bytes], height: int, row_bytes: int) -> bytes:
    """Return a TIFF of 8-bit gray without predictor, whose pixels are the bytes of the parts."""
    sizes = [len(part) for part in parts]
    offsets = list(itertools.accumulate(sizes, initial=8))
    tags = {256: [row_bytes], 257: [height], 258: [8], 259: [layout.compression], 262: [1]}
    tags |= {266: [2 if layout.fill_order == 2 else 1]}
    if layout.tiled:
        across = -(-layout.width // layout.segment[1])
        tags |= {322: [row_bytes // across], 323: [layout.segment[0]]}
        tags |= {324: offsets[:-1], 325: sizes}
    else:
        tags |= {278: [layout.segment[0]], 273: offsets[:-1], 279: sizes}
    entries = [ifd.integers("<", tag, ifd.LONG, *values) for tag, values in tags.items()]
    end = offsets[-1] + offsets[-1] % 2
    head = b"II*\0" + struct.pack("<I", end)
    return b"".join([head, *parts]).ljust(end, b"\0") + ifd.build(entries, "<", end)


def _undo_predictor(file: TiffFile, raw: Array, depth: int) -> Array:
    """Convert bytes (rows, segments, bytes) to samples (rows, segments, columns, depth)."""
    kind, order = file.layout.dtype, file.block.order
    rows, across, size = raw.shape
    shape = (rows, across, size // (depth * kind.itemsize), depth)
    if file.layout.predictor == 3:  # Differences of bytes, which are sorted by significance.
        steps = np.cumsum(raw.reshape(rows, across, -1, depth), axis=2, dtype=np.uint8)
        planes = steps.reshape(rows, across, kind.itemsize, -1).swapaxes(2, 3)
        return np.ascontiguousarray(planes).view(kind.newbyteorder(">")).reshape(shape)
    if file.layout.predictor == 2:  # Differences of samples as integers, also those of floats.
        whole = np.dtype(f"u{kind.itemsize}")
        steps = raw.view(whole.newbyteorder(order)).reshape(shape)
        return np.cumsum(steps, axis=2, dtype=whole).view(kind)
    return raw.view(kind.newbyteorder(order)).reshape(shape)
