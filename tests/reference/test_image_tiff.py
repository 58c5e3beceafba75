"""Deep TIFF against tifffile: every layout read, and what is written read by three readers."""

from __future__ import annotations

import io
import struct
import sys
from typing import Any

import cv2
import image_samples as samples
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as pillow
from PIL import __version__ as pillow_version

from realesr_cli.errors import (
    MissingDecoderError,
    UnreadableImageError,
    UnsupportedImageError,
)
from realesr_cli.image import ifd
from realesr_cli.image.probe import probe
from realesr_cli.image.read import read_image
from realesr_cli.image.types import Image
from realesr_cli.image.write import WriteSettings, encode_image

PILLOW = int(pillow_version.split(".")[0])


def _tiff(array: Any, **options: Any) -> bytes:
    channels = array.shape[2]
    options.setdefault("photometric", "rgb" if channels >= 3 else "minisblack")
    if channels in (2, 4):
        options.setdefault("extrasamples", ["unassalpha"])
    if channels == 1:
        array = array[..., 0]
    elif options.get("planarconfig") == "separate":
        array = np.moveaxis(array, -1, 0)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


LAYOUTS = {
    "plain": {},
    "strips": {"rowsperstrip": 3},
    "deflate": {"compression": "zlib"},
    "predictor": {"compression": "zlib", "predictor": 2, "rowsperstrip": 4},
    "tiles": {"tile": (16, 16)},
    "deflated tiles": {"tile": (16, 32), "compression": "zlib", "predictor": 2},
    "planes": {"planarconfig": "separate"},
    "deflated planes": {"planarconfig": "separate", "compression": "zlib", "predictor": 2},
    "big endian": {"byteorder": ">"},
    "big endian predictor": {"byteorder": ">", "compression": "zlib", "predictor": 2},
    "big tiff": {"bigtiff": True},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_deep_layouts_are_read_exactly(layout: str, channels: int, dtype: Any):
    options = dict(LAYOUTS[layout])
    if channels == 1:
        options.pop("planarconfig", None)
    if dtype == np.float32:  # whose predictor tifffile writes with a library that is not there
        options.pop("predictor", None)
    array = samples.noise(21, 35, channels, dtype)
    data = _tiff(array, **options)
    image = read_image(data)
    assert np.array_equal(np.asarray(image).reshape(array.shape), array)
    assert image.pixels.dtype == dtype
    header = probe(data)
    assert (header.channels, header.bits) == (image.channels, image.bits)
    assert header.has_alpha == image.has_alpha == (channels in (2, 4))


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_become_float32(dtype: Any):
    array = samples.noise(5, 6, 3, dtype)
    image = read_image(_tiff(array))
    assert image.pixels.dtype == np.float32
    assert np.array_equal(image.pixels, array.astype(np.float32))


def test_floating_point_predictor_as_opencv_writes_it():
    if not hasattr(cv2, "IMWRITE_TIFF_PREDICTOR"):
        pytest.skip("this version of OpenCV cannot choose the predictor")
    array = samples.noise(9, 11, 3, np.float32)
    options = [cv2.IMWRITE_TIFF_COMPRESSION, 8, cv2.IMWRITE_TIFF_PREDICTOR, 3]
    data = cv2.imencode(".tiff", array[..., ::-1], options)[1].tobytes()
    assert tifffile.TiffFile(io.BytesIO(data)).pages[0].predictor == 3
    assert np.array_equal(read_image(data).pixels, array)


@pytest.mark.parametrize("compression", [5, 32773], ids=["LZW", "PackBits"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_other_compressions_go_through_libtiff(compression: int, channels: int):
    array = samples.noise(9, 11, channels, np.uint16) // 16
    swapped = array[..., [2, 1, 0, 3][:channels]] if channels > 1 else array
    options = [cv2.IMWRITE_TIFF_COMPRESSION, compression]
    data = cv2.imencode(".tiff", swapped, options)[1].tobytes()
    assert tifffile.TiffFile(io.BytesIO(data)).pages[0].compression == compression
    assert np.array_equal(np.asarray(read_image(data)).reshape(array.shape), array)


def _turned_lzw(orientation: int, array: Any) -> bytes:
    """LZW as OpenCV writes it, with a second directory at the end that states the orientation."""
    options = [cv2.IMWRITE_TIFF_COMPRESSION, 5]
    data = cv2.imencode(".tiff", array[..., ::-1], options)[1].tobytes()
    block = ifd.parse(data)
    entries = list(block.directory(block.first).entries.values())
    entries.append(ifd.integers(block.order, 274, ifd.SHORT, orientation))
    data += b"\0" * (len(data) % 2)
    pointer = struct.pack(block.order + "I", len(data))
    return data[:4] + pointer + data[8:] + ifd.build(entries, block.order, len(data))


def test_the_orientation_is_applied_once_through_opencv_too():
    array = samples.noise(6, 9, 3, np.uint16)
    image = read_image(_turned_lzw(6, array))
    assert np.array_equal(image.pixels, np.rot90(array, -1))


@pytest.mark.parametrize("compression", [5, 8])
def test_tags_nobody_knows_cause_no_output(compression: int, capfd: pytest.CaptureFixture[str]):
    array = samples.noise(6, 9, 3, np.uint16)
    options = [cv2.IMWRITE_TIFF_COMPRESSION, compression]
    data = cv2.imencode(".tiff", array[..., ::-1], options)[1].tobytes()
    data += b"\0" * (len(data) % 2)
    block = ifd.parse(data)
    entries = list(block.directory(block.first).entries.values())
    entries.append(ifd.integers(block.order, 65_000, ifd.SHORT, 1, 2, 3))
    pointer = struct.pack(block.order + "I", len(data))
    made = data[:4] + pointer + data[8:] + ifd.build(entries, block.order, len(data))
    assert np.array_equal(read_image(made).pixels, array)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_white_is_zero_is_turned_over(dtype: Any):
    array = samples.noise(5, 6, 1, dtype)
    image = read_image(_tiff(array, photometric="miniswhite"))
    top = 1 if dtype == np.float32 else 65535
    assert np.array_equal(image.pixels, (top - array).astype(dtype))


def test_white_is_zero_is_turned_over_through_pillow_too():
    array = samples.noise(5, 6, 1, np.uint16)
    data = cv2.imencode(".tiff", array, [cv2.IMWRITE_TIFF_COMPRESSION, 5])[1].tobytes()
    assert np.array_equal(read_image(_patched(data, 262, 0)).pixels, 65535 - array)


def test_premultiplied_color_is_divided():
    array = np.zeros((1, 3, 4), np.uint16)
    array[0, 0] = 10000, 20000, 5000, 20000
    array[0, 1] = 0, 0, 0, 0
    array[0, 2] = 65535, 1, 2, 65535
    image = read_image(_tiff(array, extrasamples=["assocalpha"]))
    assert image.pixels[0].tolist() == [[32768, 65535, 16384], [0, 0, 0], [65535, 1, 2]]


def test_channels_that_are_no_alpha_are_left_out_with_a_word():
    array = samples.noise(5, 6, 5, np.uint16)
    image = read_image(_tiff(array, extrasamples=["unspecified", "unassalpha"]))
    assert image.alpha is not None
    assert np.array_equal(image.alpha, array[..., 4])
    assert image.notes == ("1 channels besides color and alpha left out",)


def test_a_dark_deep_image_stays_deep():
    array = samples.noise(8, 8, 3, np.uint16) % 200
    for data in (_tiff(array), samples.png_bytes(array, 2)):
        image = read_image(data)
        assert image.bits == 16
        assert np.array_equal(image.pixels, array)


def test_floats_beyond_one_are_refused():
    with pytest.raises(UnsupportedImageError, match="tone-map"):
        read_image(_tiff(np.full((4, 4, 3), 7.5, np.float32)))


def test_the_page_taken_is_the_first():
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for value in (1000, 2000):
            writer.write(np.full((4, 5, 3), value, np.uint16), photometric="rgb")
    image = read_image(buffer.getvalue())
    assert image.notes == ("first page of 2 taken",)
    assert (image.pixels == 1000).all()


@pytest.mark.parametrize("channels", [2, 3])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}])
def test_a_deep_tiff_cut_off_is_an_error(channels: int, options: dict[str, Any]):
    data = _tiff(samples.noise(30, 40, channels, np.uint16), **options)
    with pytest.raises(UnreadableImageError, match="truncated"):
        read_image(data[: len(data) // 2])


def test_a_deflated_strip_that_is_damaged_or_short_is_an_error():
    data = bytearray(_tiff(samples.noise(30, 40, 3, np.uint16), compression="zlib"))
    page = tifffile.TiffFile(io.BytesIO(bytes(data))).pages[0]
    start = page.dataoffsets[0]
    broken = data.copy()
    broken[start : start + 2] = b"\xff\xff"
    with pytest.raises(UnreadableImageError, match="cannot be decoded"):
        read_image(bytes(broken))
    short = data.copy()
    where = page.tags[279].valueoffset
    short[where : where + 2] = (100).to_bytes(2, "little")
    with pytest.raises(UnreadableImageError, match="cannot be decoded"):
        read_image(bytes(short))


def _patched(data: bytes, tag: int, value: int) -> bytes:
    page = tifffile.TiffFile(io.BytesIO(data)).pages[0]
    where = page.tags[tag].valueoffset
    order = "little" if page.parent.byteorder == "<" else "big"
    return data[:where] + value.to_bytes(2, order) + data[where + 2 :]


def test_deep_kinds_nobody_here_decodes_are_refused_with_the_way_out():
    data = _tiff(samples.noise(9, 11, 2, np.uint16))
    with pytest.raises(UnsupportedImageError, match=r"compression 777 .* deflate"):
        read_image(_patched(data, 259, 777))
    with pytest.raises(UnsupportedImageError, match="got 40"):
        read_image(_patched(data, 277, 40))


def test_damaged_lzw_is_an_error():
    array = samples.noise(20, 30, 3, np.uint16)
    data = bytearray(_turned_lzw(1, array))
    page = tifffile.TiffFile(io.BytesIO(bytes(data))).pages[0]
    start, size = page.dataoffsets[0], page.databytecounts[0]
    data[start + size // 2 : start + size] = bytes(size - size // 2)
    with pytest.raises((UnreadableImageError, UnsupportedImageError)):
        read_image(bytes(data))


def test_raw_files_of_cameras_are_not_taken_for_their_preview(monkeypatch: pytest.MonkeyPatch):
    extra = [(50706, 1, 4, (1, 4, 0, 0), True)]
    data = _tiff(samples.noise(5, 6, 3), extratags=extra)
    monkeypatch.setitem(sys.modules, "rawpy", None)
    with pytest.raises(MissingDecoderError, match="pip install rawpy"):
        read_image(data)


@pytest.mark.parametrize("damage", [b"II*\0\xff\xff\xff\x7f", b"II*\0\x08\0\0\0\xff\xff"])
def test_damaged_directories_are_errors(damage: bytes):
    with pytest.raises(UnreadableImageError, match="damaged"):
        read_image(damage + bytes(40))


@pytest.mark.parametrize("format", ["tiff", "jpg"])
def test_the_layout_that_tifffile_describes_is_not_copied(format: str):
    buffer = io.BytesIO()
    array = samples.noise(6, 8, 3)
    tifffile.imwrite(buffer, array, photometric="rgb", metadata={"axes": "YXS"})
    assert b'"shape"' in buffer.getvalue()
    image = read_image(buffer.getvalue())
    larger = image.with_pixels(samples.noise(24, 32, 3), None)
    data = encode_image(larger, format)
    assert b'"shape"' not in data
    if format == "tiff":
        assert tifffile.imread(io.BytesIO(data)).shape == (24, 32, 3)
        assert 270 not in tifffile.TiffFile(io.BytesIO(data)).pages[0].tags


def test_a_description_of_the_image_is_copied():
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples.noise(6, 8, 3), photometric="rgb", description="my cat")
    data = encode_image(read_image(buffer.getvalue()), "tiff")
    assert tifffile.TiffFile(io.BytesIO(data)).pages[0].tags[270].value == "my cat"


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_deflate", "lzma", "zstd"])
@pytest.mark.parametrize("dtype", [np.uint16, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [2, 3, 5])
def test_every_compression_of_bytes_is_read(compression: str, dtype: Any, channels: int):
    if compression == "zstd" and PILLOW < 13:
        pytest.skip("older wheels of Pillow lack Zstandard, and crash when they write it")
    array = samples.noise(9, 11, channels, dtype)
    kind = np.dtype(dtype)
    # Pillow compresses the rows as 8-bit gray, and the directory then says what they are.
    rows = pillow.fromarray(array.view(np.uint8).reshape(9, -1))
    data = bytearray(samples.pillow_bytes(rows, "TIFF", compression=compression))
    block = ifd.parse(bytes(data))
    entries = dict(block.directory(block.first).entries)
    changed = {256: (11,), 258: [8 * kind.itemsize] * channels, 277: (channels,), 262: (2,)}
    changed |= {339: [3 if kind.kind == "f" else 1] * channels, 262: (2 if channels > 2 else 1,)}
    changed |= {338: [2] * (channels - 3 if channels > 2 else 1)}
    for tag, values in changed.items():
        entries[tag] = ifd.integers(block.order, tag, ifd.SHORT, *values)
    data += b"\0" * (len(data) % 2)
    pointer = struct.pack(block.order + "I", len(data))
    made = bytes(data[:4]) + pointer + bytes(data[8:])
    made += ifd.build([e for e in entries.values() if e.data], block.order, len(data))
    found = np.asarray(read_image(made))
    expected = array if channels < 5 else array[..., :4]
    assert np.array_equal(found, expected.astype(np.float32 if kind.kind == "f" else dtype))


# -- writing -----------------------------------------------------------------------------------


def _image(channels: int, dtype: Any, height: int = 23, width: int = 31) -> Image:
    array = samples.noise(height, width, channels, dtype)
    colors = channels - 1 + channels % 2
    alpha = np.ascontiguousarray(array[..., -1]) if channels % 2 == 0 else None
    return Image(np.ascontiguousarray(array[..., :colors]), alpha)


@pytest.mark.parametrize("level", [None, 0, 9])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_what_is_written_is_read_by_tifffile_and_by_us(channels: int, dtype: Any, level: Any):
    image = _image(channels, dtype)
    data = encode_image(image, "tiff", WriteSettings(compress_level=level))
    expected = np.asarray(image)
    page = tifffile.TiffFile(io.BytesIO(data)).pages[0]
    found = page.asarray()
    assert found.dtype == dtype
    assert np.array_equal(found, expected)
    assert page.photometric == (2 if channels >= 3 else 1)
    assert list(page.extrasamples) == ([2] if channels in (2, 4) else [])
    assert np.array_equal(np.asarray(read_image(data)), expected)


# OpenCV multiplies 8-bit color by alpha on reading, so that one combination says nothing.
@pytest.mark.parametrize(
    ("channels", "dtype"),
    [(1, np.uint8), (3, np.uint8), (1, np.uint16), (3, np.uint16), (4, np.uint16)],
)
def test_what_is_written_is_read_by_opencv(channels: int, dtype: Any):
    image = _image(channels, dtype)
    found = cv2.imdecode(np.frombuffer(encode_image(image, "tiff"), np.uint8), cv2.IMREAD_UNCHANGED)
    if channels > 1:
        found = found[..., [2, 1, 0, 3][:channels]]
    assert np.array_equal(found, np.asarray(image))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_what_is_written_is_read_by_pillow(channels: int):
    image = _image(channels, np.uint8)
    found = pillow.open(io.BytesIO(encode_image(image, "tiff")))
    assert np.array_equal(np.asarray(found), np.asarray(image))


@pytest.mark.parametrize("order", ["<", ">"])
def test_metadata_is_read_by_tifffile_and_pillow(order: str):
    block = samples.exif_block(order, orientation=1)
    image = Image(
        samples.noise(12, 16, 3, np.uint16),
        icc=samples.ADOBE,
        exif=block,
        xmp=samples.XMP,
        dpi=(300.0, 72.009),
    )
    data = encode_image(image, "tiff")
    page = tifffile.TiffFile(io.BytesIO(data)).pages[0]
    assert page.parent.byteorder == order
    assert np.array_equal(page.asarray(), image.pixels)
    assert np.array_equal(read_image(data).pixels, image.pixels)
    assert page.tags[34675].value == samples.ADOBE
    assert b'tiff:ImageWidth="16"' in bytes(page.tags[700].value)
    assert page.tags["Make"].value == "A maker of cameras"
    exif = page.tags[34665].value
    assert (exif["PixelXDimension"], exif["PixelYDimension"]) == (16, 12)
    assert page.tags[34853].value["GPSLatitudeRef"] == "N"
    assert page.tags[282].value == (300, 1)
    assert page.tags[274].value == 1
    eight = Image(samples.noise(4, 4, 3), exif=block, icc=samples.ADOBE, dpi=(300.0, 300.0))
    img = pillow.open(io.BytesIO(encode_image(eight, "tiff")))
    assert img.info["icc_profile"] == samples.ADOBE
    assert img.info["dpi"] == (300, 300)
    assert img.getexif()[271] == "A maker of cameras"
    assert img.getexif().get_ifd(34853)[1] == "N"


@given(
    st.integers(1, 300),
    st.integers(1, 70),
    st.sampled_from([1, 2, 3, 4]),
    st.sampled_from([np.uint8, np.uint16, np.float32]),
    st.integers(0, 9),
)
def test_any_size_survives(height: int, width: int, channels: int, dtype: Any, level: int):
    image = _image(channels, dtype, height, width)
    data = encode_image(image, "tiff", WriteSettings(compress_level=level))
    assert np.array_equal(np.asarray(read_image(data)), np.asarray(image))
