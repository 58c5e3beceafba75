"""Encoders of all formats: each writes an image to an open file."""

from __future__ import annotations

from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
from PIL import Image as pillow

from realesr_cli.errors import ImageWriteError, MissingDependencyError
from realesr_cli.image import pillow as pil
from realesr_cli.image import plugins, writers
from realesr_cli.image.formats import EncodeOptions
from realesr_cli.image.pixels import Array
from realesr_cli.image.types import Encodable, Metadata

_FINE_CHROMA_QUALITY = 90
"""From this quality on, color is stored in full resolution: its detail is worth the bytes."""


def encode_png(file: BinaryIO, image: Encodable, options: EncodeOptions) -> None:
    """Write a PNG of 8 or 16 bits."""
    writers.write_png(file, image, options.compress_level)


def encode_tiff(file: BinaryIO, image: Encodable, options: EncodeOptions) -> None:
    """Write a TIFF of 8 or 16 bits or floats; the file must be able to seek."""
    writers.write_tiff(file, image, options.compress_level)


def encode_jpg(file: BinaryIO, image: Encodable, options: EncodeOptions) -> None:
    """Write a JPEG; a large one in bands, because Pillow copies everything it encodes."""
    # Without `optimize`: Pillow's buffer for it is too small for noise at high quality.
    keywords = _lossy(image.metadata, options.quality) | {"dpi": _dpi(image.metadata)}
    halved = image.rows.channels == 3 and keywords["subsampling"] != "4:4:4"
    writers.write_jpg(
        file,
        image.rows,
        lambda band: _encode_pillow("jpg", band, None, keywords),
        block=16 if halved else 8,
    )


def encode_webp(file: BinaryIO, image: Encodable, options: EncodeOptions) -> None:
    """Write a WebP; a lossless one always keeps the color of transparent pixels."""
    keywords = _lossy(image.metadata, options.quality)
    del keywords["subsampling"]  # always 4:2:0
    keywords["lossless"] = options.lossless
    keywords["exact"] = options.lossless or image.hidden_color
    file.write(_encode_pillow("webp", *image.collect(), keywords))


def encode_avif(file: BinaryIO, image: Encodable, options: EncodeOptions) -> None:
    """Write an AVIF."""
    keywords = _lossy(image.metadata, options.quality)
    if image.rows.channels == 1:
        del keywords["subsampling"]
    with pil.capture_warnings():  # Pillow parses the EXIF block.
        if not _survives_pillow(image.metadata.exif):
            keywords.pop("exif", None)
        file.write(_encode_pillow("avif", *image.collect(), keywords))


def _survives_pillow(exif: bytes | None) -> bool:
    """Return whether Pillow can parse an EXIF block and write it again, which it does for AVIF."""
    try:
        tags = pillow.Exif()
        tags.load(exif or b"")
        tags.tobytes()
    except Exception:  # Damaged blocks make it raise nearly anything.
        return False
    return True


def encode_bmp(file: BinaryIO, image: Encodable, options: EncodeOptions) -> None:
    """Write a BMP."""
    keywords = {"dpi": _dpi(image.metadata)}
    file.write(_encode_pillow("bmp", *image.collect(), keywords))


def encode_jxl(file: BinaryIO, image: Encodable, options: EncodeOptions) -> None:
    """Write a JPEG XL. Raises MissingDecoderError without its library."""
    library: Any = plugins.load_plugin(plugins.JXL)
    lossless = options.lossless or options.quality == 100  # as the encoder of libjxl has it
    array = join_alpha(*image.collect())
    height, width = array.shape[:2]
    encoder = library.Encoder(
        mode={1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[1 if array.ndim == 2 else array.shape[2]],
        lossless=lossless,
        quality=100 if lossless else options.quality,
        decoding_speed=0,
        effort=7,
        use_container=True,
        use_original_profile=lossless,
        num_threads=-1,
    )
    try:
        data = encoder(
            np.ascontiguousarray(array).tobytes(),
            width,
            height,
            jpeg_encode=False,
            exif=image.metadata.exif,
            jumb=None,
            xmp=image.metadata.xmp,
            compress=False,
        )
    except (RuntimeError, ValueError) as error:
        raise ImageWriteError(f"the jxl encoder fails: {error}") from error
    file.write(data)


def _lossy(metadata: Metadata, quality: int) -> dict[str, Any]:
    """Return Pillow's keywords of a lossy format."""
    keywords: dict[str, Any] = {
        "quality": quality,
        "subsampling": "4:4:4" if quality >= _FINE_CHROMA_QUALITY else "4:2:0",
        "icc_profile": metadata.icc,
        "xmp": metadata.xmp,
        "exif": None if metadata.exif is None else b"Exif\0\0" + metadata.exif,
    }
    return {key: value for key, value in keywords.items() if value is not None}


def _dpi(metadata: Metadata) -> tuple[float, float]:
    dpi = metadata.dpi
    return dpi if dpi is not None and max(dpi) < 65536 else (0, 0)  # 0: not stated


def _encode_pillow(
    format: str, pixels: Array, alpha: Array | None, keywords: dict[str, Any]
) -> memoryview:
    name = {"jpg": "JPEG", "webp": "WEBP", "avif": "AVIF", "bmp": "BMP"}[format]
    pillow.init()
    if name not in pillow.SAVE:
        raise MissingDependencyError(
            f"this build of Pillow cannot write {format}; install Pillow from its wheel, or choose "
            "another format"
        )
    image = pillow.fromarray(join_alpha(pixels, alpha))
    buffer = BytesIO()
    try:
        # The encoder writes to memory first: given a file it would write around Python, and the
        # reason of a failure (a full disk) would be lost.
        image.save(buffer, name, **keywords)
    except (OSError, ValueError, RuntimeError) as error:
        raise ImageWriteError(f"the {format} encoder fails: {error}") from error
    return buffer.getbuffer()


def join_alpha(pixels: Array, alpha: Array | None) -> Array:
    """Return (height, width) of gray without alpha, else (height, width, channels), alpha last."""
    if alpha is not None:
        return np.dstack([pixels, alpha])
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels
