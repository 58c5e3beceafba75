"""TIFF files read: their metadata, and the pixels of the deep kinds that Pillow reduces or refuses.

Source: TIFF 6.0, Adobe's TIFF technical notes (deflate, floating-point predictor). Strips and
tiles that are uncompressed or deflated are decoded here; other compressions go through OpenCV,
whose decoder is right for three or four interleaved channels only.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from realesr_cli.errors import ImageError, UnreadableImageError, UnsupportedImageError
from realesr_cli.image import ifd
from realesr_cli.image.depth import Array, unit_floats
from realesr_cli.image.exif import ORIENTATION, Metadata, from_tiff
from realesr_cli.image.opencv import load_opencv

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

ICC, XMP = 34675, 700
_DEFLATE = (8, 32946)
_UINT, _FLOAT = 1, 3
_MAX_SAMPLES = 16
_COMPRESSIONS = {5: "LZW", 6: "JPEG", 7: "JPEG", 32773: "PackBits", 34925: "LZMA", 50000: "ZSTD"}


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
    """As in EXIF; 0 where it is not stated."""
    fill_order: int
    segment: tuple[int, int]
    """Height and width of a strip or tile."""
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def deep(self) -> bool:
        """Whether the samples are 16-bit integers or floats in gray or RGB, alpha or not."""
        kinds = {_UINT: (16,), _FLOAT: (16, 32, 64)}.get(self.sample_format, ())
        return len(set(self.bits)) == 1 and self.bits[0] in kinds and self.photometric in (0, 1, 2)

    @property
    def has_alpha(self) -> bool:
        """Whether one of the channels beside the color is alpha."""
        return self.photometric in (0, 1, 2) and self.alpha_place is not None

    @property
    def alpha_place(self) -> int | None:
        """Which of the channels beside the color is alpha, if any."""
        spare = self.samples - self.colors
        # A file that does not say what its fourth channel is means alpha more often than not.
        kinds = self.extra[:spare] or ((2,) if spare == 1 else ())
        return next((i for i, kind in enumerate(kinds) if kind in (1, 2)), None)

    @property
    def left_to_pillow(self) -> bool:
        """Whether Pillow reads these deep samples whole: gray in a compression of its libtiff."""
        return self.samples == 1 and not self.plain and self.bits[0] in (16, 32)

    @property
    def plain(self) -> bool:
        """Whether the strips or tiles can be decoded without a library."""
        return self.compression in (1, *_DEFLATE) and self.fill_order == 1

    @property
    def colors(self) -> int:
        """Channels of color."""
        return 3 if self.photometric == 2 else 1


@dataclass(frozen=True)
class TiffFile:
    """A TIFF whose first directory has been read."""

    block: ifd.IfdBlock
    main: ifd.Directory
    layout: TiffLayout
    pages: int


def open_tiff(data: bytes) -> TiffFile:
    """Read the first directory.

    Raises UnreadableImage where it is damaged and UnsupportedImage for a camera's raw file, whose
    first directory holds a small preview only.
    """
    try:
        block = ifd.parse(data)
        main = block.directory(block.first)
        layout = _layout(block, main)
        pages = _count_pages(block, main)
    except ifd.MalformedDirectoryError as error:
        raise UnreadableImageError(f"the TIFF is damaged: {error}") from None
    preview = block.number(main, 254, 0) & 1 and 330 in main
    if 50706 in main or preview or data[8:10] == b"CR":
        raise UnsupportedImageError(
            "a camera's raw file: develop it first, to a 16-bit TIFF or PNG"
        )
    return TiffFile(block, main, layout, pages)


def metadata(file: TiffFile) -> Metadata:
    """Profile, EXIF, XMP and resolution of a file; EXIF that is damaged is left out."""
    entries = file.main.entries
    icc = entries[ICC].data if ICC in entries else None
    xmp = entries[XMP].data.rstrip(b"\0") if XMP in entries else None
    try:
        exif = from_tiff(file.block, file.main)
    except ifd.MalformedDirectoryError:
        exif = None
    unit = {2: 1.0, 3: 2.54}.get(file.block.number(file.main, 296, 2))
    across, down = file.block.ratio(file.main, 282), file.block.ratio(file.main, 283)
    dpi = (across * unit, down * unit) if unit and across and down else None
    return Metadata(icc or None, exif, xmp or None, dpi)


def read_deep(file: TiffFile) -> tuple[Array, Array | None, tuple[str, ...]]:
    """Pixels (height, width, 1 or 3), alpha and notes of a file whose layout is `deep`.

    The orientation is not applied. Raises UnreadableImage where the file is cut off or damaged,
    UnsupportedImage for kinds not handled, MissingDependency where OpenCV cannot load.
    """
    layout = file.layout
    colors = layout.colors
    if not colors <= layout.samples <= _MAX_SAMPLES:
        raise UnsupportedImageError(f"a TIFF with {layout.samples} channels")
    samples = _decode_plain(file) if layout.plain else _decode_opencv(file)
    if layout.sample_format == _FLOAT:
        samples = unit_floats(samples)
    pixels = samples[..., :colors]
    if layout.photometric == 0:
        pixels = (1 if layout.sample_format == _FLOAT else 65535) - pixels
    spare = layout.samples - colors
    alpha: Array | None = None
    notes: tuple[str, ...] = ()
    where = layout.alpha_place
    if where is not None:
        alpha = np.ascontiguousarray(samples[..., colors + where])
        if layout.extra[where : where + 1] == (1,):
            pixels = _divided(pixels, alpha)
    if spare > (where is not None):
        notes = (f"{spare - (where is not None)} channels beside the color were left out",)
    return np.ascontiguousarray(pixels), alpha, notes


def complete(data: bytes) -> bool:
    """Whether every strip or tile of the first image lies inside the file."""
    try:
        file = open_tiff(data)
        _check_segments(file, 1)
    except ImageError:
        return False
    return True


def mended(layout: TiffLayout, pixels: Array) -> Array:
    """Deep gray as Pillow returns it, put into its full range and the right way up."""
    if pixels.dtype == np.uint16 and layout.bits[0] == 12:  # 12-bit values come as they are.
        pixels = pixels << 4 | pixels >> 8
    if pixels.dtype != np.uint8 and layout.photometric == 0:  # Deep negatives do too.
        pixels = (1 if pixels.dtype == np.float32 else 65535) - pixels
    return pixels


def _layout(block: ifd.IfdBlock, main: ifd.Directory) -> TiffLayout:
    height, width = block.number(main, 257, 0), block.number(main, 256, 0)
    if not height or not width:
        raise ifd.MalformedDirectoryError("it states no size")
    samples = block.number(main, 277, 1)
    tiled = 322 in main
    if tiled:
        segment = (block.number(main, 323, 0), block.number(main, 322, 0))
    else:
        segment = (min(block.number(main, 278, height), height), width)
    if 0 in segment:
        raise ifd.MalformedDirectoryError("it states strips or tiles without size")
    return TiffLayout(
        height,
        width,
        bits=block.numbers(main, 258) or (1,),
        photometric=block.number(main, 262, 1),
        compression=block.number(main, 259, 1),
        samples=samples,
        planar=block.number(main, 284, 1) == 2 and samples > 1,
        predictor=block.number(main, 317, 1),
        sample_format=block.number(main, 339, _UINT),
        extra=block.numbers(main, 338),
        orientation=block.number(main, ORIENTATION, 0),
        fill_order=block.number(main, 266, 1),
        segment=segment,
        offsets=block.numbers(main, 324 if tiled else 273),
        sizes=block.numbers(main, 325 if tiled else 279),
    )


def _count_pages(block: ifd.IfdBlock, main: ifd.Directory) -> int:
    seen = {main.position}
    following = main.next
    while following and following not in seen and len(seen) < 10_000:
        seen.add(following)
        try:
            following = block.directory(following).next
        except ifd.MalformedDirectoryError:
            seen.discard(following)
            break
    return len(seen)


def _decode_plain(file: TiffFile) -> Array:
    layout = file.layout
    rows, columns = layout.segment
    down, across = -(-layout.height // rows), -(-layout.width // columns)
    planes = layout.samples if layout.planar else 1
    _check_segments(file, down * across * planes)
    depth = 1 if layout.planar else layout.samples
    kind = np.dtype(f"{'f' if layout.sample_format == _FLOAT else 'u'}{layout.bits[0] // 8}")
    result = np.empty((layout.height, layout.width, layout.samples), kind)
    for index in range(down * across * planes):
        plane, place = divmod(index, down * across)
        top, left = (place // across) * rows, (place % across) * columns
        # The last strip ends with the image; tiles are always whole.
        whole = 322 in file.main
        shape = (rows if whole else min(rows, layout.height - top), columns, depth)
        part = _segment(file, index, shape, kind)
        part = part[: layout.height - top, : layout.width - left]
        where = result[top : top + part.shape[0], left : left + part.shape[1]]
        if layout.planar:
            where[..., plane] = part[..., 0]
        else:
            where[...] = part
    return result


def _segment(file: TiffFile, index: int, shape: tuple[int, int, int], kind: np.dtype[Any]) -> Array:
    layout = file.layout
    rows, columns, depth = shape
    wanted = rows * columns * depth * kind.itemsize
    start = layout.offsets[index]
    raw = file.block.data[start : start + layout.sizes[index]]
    if layout.compression in _DEFLATE:
        try:
            raw = zlib.decompressobj().decompress(raw, wanted)
        except zlib.error as error:
            raise UnreadableImageError(f"the TIFF's pixels are damaged ({error})") from None
    if len(raw) < wanted:
        raise UnreadableImageError("the TIFF is cut off: pixels are missing")
    order = file.block.order
    if layout.predictor == 3:
        steps = np.frombuffer(raw, np.uint8, wanted).reshape(rows, -1, depth)
        steps = np.cumsum(steps, axis=1, dtype=np.uint8)
        planes = steps.reshape(rows, kind.itemsize, columns * depth).transpose(0, 2, 1)
        return np.ascontiguousarray(planes).view(kind.newbyteorder(">")).reshape(shape)
    if layout.predictor == 2:
        whole = np.dtype(f"u{kind.itemsize}")
        steps = np.frombuffer(raw, whole.newbyteorder(order), rows * columns * depth)
        return np.cumsum(steps.reshape(shape), axis=1, dtype=whole).view(kind)
    return np.frombuffer(raw, kind.newbyteorder(order), rows * columns * depth).reshape(shape)


def _check_segments(file: TiffFile, count: int) -> None:
    layout = file.layout
    if len(layout.offsets) < count or len(layout.sizes) < count:
        raise UnreadableImageError("the TIFF is damaged: it names too few strips or tiles")
    length = len(file.block.data)
    if any(start + size > length for start, size in zip(layout.offsets, layout.sizes, strict=True)):
        raise UnreadableImageError("the TIFF is cut off: pixels are missing")


def _decode_opencv(file: TiffFile) -> Array:
    layout = file.layout
    name = _COMPRESSIONS.get(layout.compression, f"number {layout.compression}")
    kind = "floating-point" if layout.sample_format == _FLOAT else "16-bit"
    advice = f"{kind} TIFF compressed with {name}: save it uncompressed or with deflate (ZIP)"
    wanted = np.dtype(np.float32 if layout.sample_format == _FLOAT else np.uint16)
    known = layout.bits[0] == wanted.itemsize * 8 and layout.samples in (3, 4)
    if not known or layout.planar or layout.photometric != 2:
        raise UnsupportedImageError(advice)
    _check_segments(file, 1)
    cv2 = load_opencv(f"to read {kind} TIFF compressed with {name}")
    data = bytearray(file.block.data)
    if ORIENTATION in file.main:  # OpenCV would apply it, and whoever called us does so again.
        entry = file.main.entries[ORIENTATION]
        size = ifd.TYPE_SIZES[entry.kind] * entry.count
        one = struct.pack(file.block.order + "H", 1)
        data[entry.data_position : entry.data_position + size] = one.ljust(size, b"\0")
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise UnsupportedImageError(f"{advice} ({error})") from None
    if decoded is None:
        raise UnreadableImageError(f"the TIFF's pixels are damaged, or the file is a {advice}")
    shape = (layout.height, layout.width, layout.samples)
    if decoded.dtype != wanted or decoded.shape != shape:
        raise UnsupportedImageError(f"{advice} (OpenCV made {decoded.dtype} {decoded.shape} of it)")
    return np.asarray(decoded[..., [2, 1, 0, 3][: layout.samples]])


def _divided(pixels: Array, alpha: Array) -> Array:
    """Color that was stored multiplied by alpha, divided again; zero where alpha is."""
    cover = alpha[..., None].astype(np.float64)
    color = np.divide(pixels, cover, out=np.zeros(pixels.shape), where=cover > 0).clip(0, 1)
    if pixels.dtype == np.float32:
        return np.asarray(color, np.float32)
    return np.asarray(np.rint(color * 65535), np.uint16)
