"""HEIC, JPEG XL and camera raw files: read with their libraries, and refused politely without."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import image_samples as samples
import numpy as np
import pytest
from PIL import Image as pillow

from realesr_cli.errors import (
    ImageTooLargeError,
    MissingDecoderError,
    UnreadableImageError,
    UnsupportedImageError,
)
from realesr_cli.image import headers, ifd
from realesr_cli.image.formats import WriteSettings, default_extension
from realesr_cli.image.probe import probe
from realesr_cli.image.read import read_image
from realesr_cli.image.types import Image
from realesr_cli.image.write import encode_image, write_image

SMOOTH = np.add.outer(np.arange(48) * 3, np.arange(64) * 2)[..., None] + np.array([0, 20, 40])
SMOOTH = SMOOTH.clip(0, 255).astype(np.uint8)

STARTS = {
    "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64),
    "jxl": b"\xff\x0a\xfa\x1f\x01" + bytes(64),
    "jxl box": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(64),
    "raw fuji": b"FUJIFILMCCD-RAW 0201" + bytes(64),
    "raw canon": b"\0\0\0\x18ftypcrx \0\0\0\1" + bytes(64),
    "raw olympus": b"IIRO\x08\0\0\0" + bytes(64),
}
PACKAGES = {"heic": "pillow-heif", "jxl": "pillow-jxl-plugin", "raw": "rawpy"}
MODULES = {"heic": "pillow_heif", "jxl": "pillow_jxl", "raw": "rawpy"}


def _heic(array: Any, mode: str = "RGB", **options: Any) -> bytes:
    heif = pytest.importorskip("pillow_heif")
    height, width = array.shape[:2]
    file = heif.from_bytes(mode, (width, height), np.ascontiguousarray(array).tobytes())
    buffer = io.BytesIO()
    file.save(buffer, **options)
    return buffer.getvalue()


def _dng(height: int = 48, width: int = 64) -> bytes:
    """A raw file of one color filter array, as DNG 1.4 asks for it at least."""
    y, x = np.mgrid[0:height, 0:width]
    content = ((x * 200 + y * 100) % 16000 + 1000).astype("<u2").tobytes()
    shorts = {258: 16, 259: 1, 262: 32803, 274: 1, 277: 1, 50778: 21}
    longs = {254: 0, 256: width, 257: height, 273: 8, 278: height, 279: len(content), 50717: 65535}
    entries = [ifd.integers("<", tag, ifd.SHORT, value) for tag, value in shorts.items()]
    entries += [ifd.integers("<", tag, ifd.LONG, value) for tag, value in longs.items()]
    entries += [ifd.integers("<", 33421, ifd.SHORT, 2, 2)]
    matrix = [value for i in range(9) for value in (10_000 * (i % 4 == 0), 10_000)]
    entries += [
        ifd.make_entry(33422, ifd.BYTE, bytes([0, 1, 1, 2])),
        ifd.make_entry(50706, ifd.BYTE, bytes([1, 4, 0, 0])),
        ifd.make_entry(271, ifd.ASCII, b"Maker\0"),
        ifd.make_entry(272, ifd.ASCII, b"Camera\0"),
        ifd.make_entry(50708, ifd.ASCII, b"Maker Camera\0"),
        ifd.make_entry(50721, 10, struct.pack("<18i", *matrix)),
        ifd.make_entry(50728, ifd.RATIONAL, struct.pack("<6I", *[1] * 6)),
    ]
    at = 8 + len(content)
    return b"II*\0" + struct.pack("<I", at) + content + ifd.build(entries, "<", at)


# -- without the libraries ---------------------------------------------------------------------


@pytest.mark.parametrize("function", [read_image, probe])
@pytest.mark.parametrize("kind", [*STARTS, "raw dng"])
def test_without_its_library_an_image_names_the_command(
    kind: str, function: Any, monkeypatch: pytest.MonkeyPatch
):
    key = kind.split()[0]
    monkeypatch.setitem(sys.modules, MODULES[key], None)
    with pytest.raises(MissingDecoderError, match=f"pip install {PACKAGES[key]}") as error:
        function(STARTS.get(kind) or _dng())
    assert "\n" not in str(error.value)
    assert isinstance(error.value, UnsupportedImageError)  # one image of many that is not done


def test_without_its_library_jxl_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    with pytest.raises(MissingDecoderError, match="pip install pillow-jxl-plugin"):
        write_image(Image(SMOOTH), tmp_path / "a.jxl")
    assert list(tmp_path.iterdir()) == []


def test_the_libraries_are_loaded_only_when_needed(tmp_path: Path):
    write_image(Image(SMOOTH), tmp_path / "a.jpg")
    code = (
        "import sys\n"
        "from realesr_cli.image.read import read_image\n"
        "from realesr_cli.image.probe import probe\n"
        f"read_image({str(tmp_path / 'a.jpg')!r}).save({str(tmp_path / 'b.png')!r})\n"
        f"probe({str(tmp_path / 'b.png')!r})\n"
        "print(sorted({'cv2', 'pillow_heif', 'pillow_jxl', 'rawpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("kind", STARTS)
def test_damaged_files_are_errors(kind: str):
    pytest.importorskip(MODULES[kind.split()[0]])
    with pytest.raises(UnreadableImageError) as error:
        read_image(STARTS[kind])
    assert "\n" not in str(error.value)


# -- HEIC --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("RGBA", 4), ("L", 1)])
def test_heic_is_read(mode: str, channels: int):
    array = np.dstack([SMOOTH, 255 - SMOOTH[..., :1]])[..., :channels]
    image = read_image(_heic(array, mode, quality=-1))
    expected = array.astype(int).reshape(48, 64, -1)
    assert np.abs(image.pixels - expected[..., : image.channels]).max() <= 3
    assert (image.channels, image.has_alpha) == (1 if channels == 1 else 3, channels == 4)
    if image.alpha is not None:
        assert np.abs(image.alpha - expected[..., 3]).max() <= 3
    assert (image.format, default_extension(image)) == ("HEIF", ".png" if channels == 4 else ".jpg")


def test_heic_of_ten_bits_keeps_them():
    heif = pytest.importorskip("pillow_heif")
    ramp = np.linspace(0, 65535, 48 * 64).reshape(48, 64).astype(np.uint16)
    image = read_image(_heic(ramp, "L;16", quality=-1))
    assert heif is not None
    assert image.bits == 16
    assert image.pixels.min() == 0
    assert image.pixels.max() == 65535
    assert len(np.unique(image.pixels)) > 500
    assert np.abs(image.pixels[..., 0].astype(int) - ramp).max() < 200


def test_heic_is_turned_once_and_keeps_its_metadata():
    block = samples.exif_block(orientation=6)
    data = _heic(SMOOTH, exif=block, xmp=samples.XMP, icc_profile=samples.ADOBE, quality=-1)
    image = read_image(data)
    assert (image.height, image.width) == (64, 48)
    assert np.abs(image.pixels.astype(int) - np.rot90(SMOOTH, -1)).max() <= 8
    assert image.icc == samples.ADOBE
    assert image.xmp == samples.XMP
    assert image.exif == samples.exif_block(orientation=1)
    header = probe(data)
    assert (header.height, header.width, header.channels, header.bits) == (64, 48, 3, 8)
    assert header.format == "HEIF"


# -- JPEG XL -----------------------------------------------------------------------------------


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_jxl_is_written_and_read(channels: int, lossless: bool):
    pytest.importorskip("pillow_jxl")
    array = np.dstack([SMOOTH, 255 - SMOOTH[..., :1]])
    colors = 1 if channels < 3 else 3
    alpha = np.ascontiguousarray(array[..., 3]) if channels in (2, 4) else None
    image = Image(np.ascontiguousarray(array[..., :colors]), alpha)
    data = encode_image(image, "jxl", WriteSettings(lossless=lossless))
    found = read_image(data)
    tolerance = 0 if lossless else 8
    assert np.abs(np.asarray(found).astype(int) - np.asarray(image)).max() <= tolerance
    assert (found.icc, found.format, default_extension(found)) == (None, "JXL", ".jxl")
    header = probe(data)
    assert (header.channels, header.has_alpha) == (colors, alpha is not None)


def test_jxl_keeps_metadata():
    pytest.importorskip("pillow_jxl")
    block = samples.exif_block(orientation=1)
    image = Image(SMOOTH[:30, :40], exif=block, xmp=samples.XMP)
    found = read_image(encode_image(image, "jxl"))
    assert (found.exif, found.xmp) == (block, samples.XMP)


@pytest.mark.parametrize(
    ("height", "width"),
    [(8, 8), (48, 64), (256, 256), (257, 100), (33, 44), (90, 160), (1, 9000), (500, 250)],
)
@pytest.mark.parametrize("container", [False, True])
def test_the_size_of_a_jxl_is_in_its_first_bytes(height: int, width: int, container: bool):
    library = pytest.importorskip("pillow_jxl")
    encoder = library.Encoder("L", True, 100, 0, 1, container, True, 1)
    array = np.zeros((height, width), np.uint8)
    meta = {"exif": samples.exif_block() if container else None, "jumb": None, "xmp": None}
    data = encoder(array.tobytes(), width, height, jpeg_encode=False, compress=False, **meta)
    header = headers.parse_jxl(data[: headers.HEAD_BYTES])
    assert header == headers.JxlHeader(height, width, 8)
    with pytest.raises(ImageTooLargeError):
        read_image(data, max_pixels=height * width - 1)


def test_a_jpeg_inside_a_jxl_is_read(tmp_path: Path):
    pytest.importorskip("pillow_jxl")
    path = tmp_path / "a.jpg"
    pillow.fromarray(SMOOTH).save(path, quality=90)
    buffer = io.BytesIO()
    with pillow.open(path) as img:
        img.save(buffer, "JXL", lossless_jpeg=True)
    expected = read_image(path).pixels
    assert np.array_equal(read_image(buffer.getvalue()).pixels, expected)


# -- camera raw --------------------------------------------------------------------------------


def test_a_raw_file_is_developed():
    pytest.importorskip("rawpy")
    data = _dng()
    image = read_image(data)
    assert (image.height, image.width, image.channels, image.bits) == (48, 64, 3, 16)
    assert image.pixels.max() > 30_000
    assert (image.format, default_extension(image)) == ("RAW", ".png")
    assert any("developed" in note for note in image.notes)
    header = probe(data)
    assert (header.height, header.width, header.bits) == (48, 64, 16)
    with pytest.raises(ImageTooLargeError):
        probe(data, max_pixels=1000)


@pytest.mark.parametrize("format", ["tiff", "jpg"])
@pytest.mark.filterwarnings("ignore::realesr_cli.errors.RealesrWarning")
def test_a_developed_file_is_no_raw_file(format: str):
    pytest.importorskip("rawpy")
    found = read_image(encode_image(read_image(_dng()), format))
    assert found.format in ("TIFF", "JPEG")
    assert found.exif is not None
    tags = pillow.Exif()
    tags.load(found.exif)
    assert tags[271] == "Maker"
    assert not {50706, 33422} & set(tags)
