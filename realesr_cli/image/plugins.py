"""Decoders in libraries that are loaded only when a file needs them: OpenCV, and three extras.

HEIC, JPEG XL and camera raw files need pillow-heif, pillow-jxl-plugin and rawpy. These are
optional: most users never meet such a file, and the wheels contain code under the LGPL or GPL.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from types import ModuleType
from typing import Any

import numpy as np

from realesr_cli.errors import (
    MissingDecoderError,
    MissingDependencyError,
    RealesrError,
    UnreadableImageError,
)
from realesr_cli.image import color, ifd, tiff
from realesr_cli.image import exif as exif_tags
from realesr_cli.image import pillow as pil
from realesr_cli.image.headers import parse_jxl
from realesr_cli.image.pixels import Array, to_unit_floats, unmultiply
from realesr_cli.image.source import check_pixels
from realesr_cli.image.types import Decoded, ImageInfo, Metadata

_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_RAW_STARTS = (
    b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb", b"\0MRM"
)  # fmt: skip
"""Fujifilm, Olympus (three), Panasonic, Sigma and Minolta; others are TIFF or ISO files."""


def load_opencv(purpose: str) -> ModuleType:
    """Return the module `cv2`; `purpose` completes "OpenCV is needed ..." in the message.

    Raises MissingDependencyError if it is not installed or a system library is missing. OpenCV is
    loaded only here, so that everything else works on a server without libGL.
    """
    try:
        return importlib.import_module("cv2")
    except ImportError as error:
        raise MissingDependencyError(
            f"OpenCV is needed {purpose}, but cannot be loaded ({error}). On a server without a "
            "screen install the system packages libgl1 and libglib2.0-0 (apt), or replace "
            "opencv-python by opencv-python-headless (pip)"
        ) from error


@dataclass(frozen=True)
class Opened:
    """An image whose header has been read."""

    info: ImageInfo
    decode: Callable[[], Decoded]


@dataclass(frozen=True)
class Plugin:
    """A kind of image that an optional library decodes."""

    name: str
    package: str
    module: str
    recognize: Callable[[bytes], bool]
    open: Callable[[Any, bytes, int | None], Opened]


def find_plugin(data: bytes) -> Plugin | None:
    """Return the plugin for a file by its contents (the start, or all of a TIFF), if any."""
    return next((plugin for plugin in PLUGINS if plugin.recognize(data)), None)


def load_plugin(plugin: Plugin) -> ModuleType:
    """Import the library of a plugin.

    Raises MissingDecoderError, with the command that installs it.
    """
    try:
        return importlib.import_module(plugin.module)
    except ImportError as error:
        raise MissingDecoderError(
            f"{plugin.name} needs {plugin.package}, which cannot be loaded ({error}); install it "
            f"with: pip install {plugin.package}"
        ) from error


def open_with(plugin: Plugin, data: bytes, limit: int | None) -> Opened:
    """Read the header of an image of at most `limit` pixels; its `decode` returns the pixels.

    Raises MissingDecoderError without the library, UnreadableImageError for damage, and
    ImageTooLargeError above the limit.
    """
    library = load_plugin(plugin)
    opened = _guard(plugin, lambda: plugin.open(library, data, limit))
    return Opened(opened.info, lambda: _guard(plugin, opened.decode))


def _guard(plugin: Plugin, work: Callable[[], Any]) -> Any:
    try:
        return work()
    except (RealesrError, MemoryError):
        raise
    except Exception as error:  # Damaged files make the libraries raise nearly anything.
        reason = " ".join(str(error).split()).split(". ")[0] or type(error).__name__
        raise UnreadableImageError(
            f"the {plugin.name} image cannot be decoded: {reason}"
        ) from error


def _is_heic(data: bytes) -> bool:
    return data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS and b"avif" not in data[:64]


def _open_heic(library: Any, data: bytes, limit: int | None) -> Opened:
    file = library.open_heif(BytesIO(data), convert_hdr_to_8bit=False)
    image = file[file.primary_index]
    width, height = image.size
    check_pixels(height, width, limit)
    mode = image.mode.split(";")[0]
    channels, alpha = (1 if mode in ("L", "LA", "La", "I") else 3), mode[-1] in "Aa"
    stored = int(image.info.get("bit_depth", 8))
    bits = 16 if stored > 8 else 8

    def decode() -> Decoded:
        # A copy: the memory of the array belongs to the library.
        array = np.array(image).reshape(height, width, -1)
        if bits == 16:  # libheif shifts 10 or 12 bits up and leaves the low bits zero.
            array = array | array >> stored
        pixels = np.ascontiguousarray(array[..., :channels])
        cover = np.ascontiguousarray(array[..., -1]) if alpha else None
        if cover is not None and mode[-1] == "a":
            pixels = unmultiply(pixels, cover)
        info = image.info
        exif = exif_tags.without_prefix(info.get("exif"))
        metadata = Metadata(info.get("icc_profile"), exif, info.get("xmp"))
        return Decoded(pixels, cover, metadata, "HEIF", orientation=1)

    return Opened(ImageInfo(height, width, channels, bits, alpha, "HEIF"), decode)


def _is_jxl(data: bytes) -> bool:
    return data.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL "))


def _open_jxl(library: Any, data: bytes, limit: int | None) -> Opened:
    header = parse_jxl(data)
    if header is None:
        raise UnreadableImageError("the JPEG XL header is damaged")
    check_pixels(header.height, header.width, limit)
    # The library has no way to read the header alone.
    from_jpeg, info, raw, icc, boxes = library.Decoder(num_threads=-1)(data)
    if from_jpeg:
        return _opened(pil.decode(raw, limit))
    kinds = {"I;16": np.uint16, "F": np.float32, "F;16": np.float16}
    array = np.frombuffer(raw, kinds.get(info.mode, np.uint8)).reshape(info.height, info.width, -1)
    if array.dtype.kind == "f":
        array = to_unit_floats(array)
    colors = array.shape[2] - 1 + array.shape[2] % 2
    alpha = None if colors == array.shape[2] else np.ascontiguousarray(array[..., colors])
    found = {bytes(box.box_type): bytes(box.data) for box in reversed(boxes)}
    exif = found.get(b"Exif")
    if exif is not None and exif[4:6] in (b"II", b"MM"):  # after the offset of its first byte
        exif = exif[4:]
    icc = None if color.is_srgb(icc) else icc  # libjxl states sRGB as a profile too
    metadata = Metadata(icc or None, exif_tags.without_prefix(exif), found.get(b"xml "))
    reduced = header.bits > 8 and array.dtype == np.uint8
    notes = (f"{header.bits} bits per channel reduced to 8",) if reduced else ()
    pixels = np.ascontiguousarray(array[..., :colors])
    return _opened(Decoded(pixels, alpha, metadata, "JXL", notes, orientation=1))


def _opened(decoded: Decoded) -> Opened:
    height, width, channels = decoded.pixels.shape
    bits = decoded.pixels.dtype.itemsize * 8
    alpha = decoded.alpha is not None
    info = ImageInfo(height, width, channels, bits, alpha, decoded.format)
    return Opened(info, lambda: decoded)


def _is_raw(data: bytes) -> bool:
    """Recognize a raw file; the first image of one that is a TIFF is only a small preview."""
    if data.startswith(_RAW_STARTS) or data[4:12] == b"ftypcrx ":
        return True
    if not data.startswith(tiff.SIGNATURES):
        return False
    try:
        block = ifd.parse(data)
        main = block.directory(block.first)
    except ifd.MalformedDirectoryError:
        return False
    preview = block.number(main, 254, 0) & 1 and 330 in main
    return bool(50706 in main or preview or data[8:10] == b"CR")


def _open_raw(library: Any, data: bytes, limit: int | None) -> Opened:
    raw = library.imread(BytesIO(data))
    height, width = raw.sizes.iheight, raw.sizes.iwidth
    check_pixels(height, width, limit)

    def decode() -> Decoded:
        # As the camera would develop it: its white balance, sRGB with its curve, upright.
        pixels: Array = raw.postprocess(
            use_camera_wb=True, output_bps=16, gamma=(2.4, 12.92), user_flip=None
        )
        exif = tiff.read_metadata(tiff.open_tiff(data)).exif if data[:2] in (b"II", b"MM") else None
        notes = ("camera raw file developed with default settings",)
        return Decoded(pixels, None, Metadata(exif=exif), "RAW", notes, orientation=1)

    return Opened(ImageInfo(height, width, 3, 16, False, "RAW"), decode)


HEIC = Plugin("HEIC", "pillow-heif", "pillow_heif", _is_heic, _open_heic)
JXL = Plugin("JPEG XL", "pillow-jxl-plugin", "pillow_jxl", _is_jxl, _open_jxl)
RAW = Plugin("camera raw", "rawpy", "rawpy", _is_raw, _open_raw)

PLUGINS = (HEIC, JXL, RAW)
