"""PNG as written here, read by Pillow and OpenCV; 16-bit PNG of others, read here."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import cv2
import image_samples as samples
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as pillow

from realesr_cli.image import png
from realesr_cli.image.read import read_image
from realesr_cli.image.types import Image
from realesr_cli.image.write import WriteSettings, encode_image


def _image(channels: int, dtype: Any, height: int = 13, width: int = 17, seed: int = 0) -> Image:
    array = samples.noise(height, width, channels, dtype, seed)
    colors = channels - 1 + channels % 2
    alpha = np.ascontiguousarray(array[..., -1]) if channels % 2 == 0 else None
    return Image(np.ascontiguousarray(array[..., :colors]), alpha)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_eight_bits_are_read_by_pillow(channels: int):
    image = _image(channels, np.uint8)
    img = pillow.open(io.BytesIO(encode_image(image, "png")))
    assert img.mode == {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
    assert np.array_equal(np.asarray(img), np.asarray(image))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_are_read_by_opencv(channels: int):
    image = _image(channels, np.uint16)
    data = np.frombuffer(encode_image(image, "png"), np.uint8)
    found = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    assert found.dtype == np.uint16
    expected = np.asarray(image)
    if channels == 2:
        expected = expected[..., [0, 0, 0, 1]]
    if channels >= 2:
        found = found[..., [2, 1, 0, 3][: found.shape[2]]]
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_files_of_opencv_are_read(channels: int, dtype: Any):
    array = samples.noise(9, 8, channels, dtype)
    swapped = array[..., [2, 1, 0, 3][:channels]] if channels > 1 else array
    image = read_image(cv2.imencode(".png", swapped)[1].tobytes())
    assert np.array_equal(np.asarray(image).reshape(array.shape), array)


@pytest.mark.parametrize(("color_type", "channels"), [(0, 1), (4, 2), (2, 3), (6, 4)])
def test_every_kind_of_sixteen_bits_is_read(color_type: int, channels: int):
    array = samples.noise(9, 8, channels, np.uint16)
    image = read_image(samples.png_bytes(array, color_type))
    assert np.array_equal(np.asarray(image).reshape(array.shape), array)
    assert image.gray == (channels < 3)


@pytest.mark.parametrize(("color_type", "channels"), [(0, 1), (2, 3)])
def test_a_transparent_deep_color_gives_alpha(color_type: int, channels: int):
    array = samples.noise(9, 8, channels, np.uint16)
    array[1, 1] = array[2, 2] ^ 1  # differs in the last bit of sixteen only
    key = array[2, 2].astype(">u2").tobytes()
    image = read_image(samples.png_bytes(array, color_type, (b"tRNS", key)))
    assert np.array_equal(image.pixels, array)
    assert image.alpha is not None
    assert image.alpha[2, 2] == 0
    assert image.alpha[1, 1] == 65535
    assert np.count_nonzero(image.alpha == 0) == 1


def test_interlaced_sixteen_bits_are_read():
    array = samples.noise(5, 3, 3, np.uint16)
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2)]
    rows = b""
    for left, top, across, down in [*passes, (0, 1, 1, 2)]:
        part = array[top::down, left::across]
        if part.size:
            rows += b"".join(b"\0" + row.astype(">u2").tobytes() for row in part)
    header = struct.pack(">IIBBBBB", 3, 5, 16, 2, 0, 0, 1)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    data = png.SIGNATURE + b"".join(samples.png_chunk(*chunk) for chunk in chunks)
    assert np.array_equal(read_image(data).pixels, array)


def test_all_levels_of_a_deep_ramp_survive():
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    for format in ("png", "tiff"):
        for pixels in (ramp, np.repeat(ramp, 3, 2)):
            found = read_image(encode_image(Image(pixels), format)).pixels
            assert len(np.unique(found)) == 65536
            assert np.array_equal(found, pixels)


def test_floats_are_written_with_sixteen_bits():
    pixels = np.linspace(0, 1, 65536, dtype=np.float32).reshape(256, 256, 1)
    found = read_image(encode_image(Image(pixels), "png")).pixels
    assert np.array_equal(found.ravel(), np.arange(65536))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_metadata_is_read_by_pillow_whatever_the_depth(dtype: Any):
    image = Image(
        samples.noise(12, 16, 3, dtype),
        icc=samples.ADOBE,
        exif=samples.exif_block(orientation=1),
        xmp=samples.XMP,
        dpi=(300.0, 150.0),
    )
    img = pillow.open(io.BytesIO(encode_image(image, "png")))
    assert img.info["icc_profile"] == samples.ADOBE
    assert img.info["dpi"] == pytest.approx((300, 150), abs=0.02)
    assert "tiff:Orientation" in str(img.info["XML:com.adobe.xmp"])
    exif = img.getexif()
    assert exif[271] == "A maker of cameras"
    assert exif.get_ifd(34665)[40962] == 16


def test_deep_metadata_of_others_is_read():
    xmp = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(samples.XMP)
    data = samples.png_bytes(
        samples.noise(4, 4, 3, np.uint16),
        2,
        (b"iCCP", b"some name\0\0" + zlib.compress(samples.ADOBE)),
        (b"pHYs", struct.pack(">IIB", 11811, 5906, 1)),
        (b"eXIf", samples.exif_block(orientation=1)),
        (b"iTXt", b"Comment\0\0\0\0\0hello"),
        (b"iTXt", xmp),
    )
    image = read_image(data)
    assert image.icc == samples.ADOBE
    assert image.exif == samples.exif_block(orientation=1)
    assert image.xmp == samples.XMP
    assert image.dpi == pytest.approx((300, 150), abs=0.02)


TEXTS = (
    (b"tEXt", b"parameters\0a cat, steps: 20, seed: 7"),
    (b"zTXt", b"workflow\0\0" + zlib.compress(b'{"nodes": []}')),
    (b"iTXt", b"prompt\0\0\0de\0Aufgabe\0" + "größer".encode()),
)


@pytest.mark.parametrize("bits", [8, 16])
def test_texts_are_kept(bits: int):
    array = samples.noise(4, 4, 3, f"u{bits // 8}")
    image = read_image(samples.png_bytes(array, 2, *TEXTS, bits=bits))
    assert image.text == TEXTS
    data = encode_image(image.with_pixels(samples.noise(8, 8, 3), None), "png")
    img = pillow.open(io.BytesIO(data))
    assert img.text == {
        "parameters": "a cat, steps: 20, seed: 7",
        "workflow": '{"nodes": []}',
        "prompt": "größer",
    }
    assert read_image(data).text == TEXTS
    assert read_image(encode_image(image, "jpg" if bits == 8 else "tiff")).text == ()
    stripped = encode_image(image, "png", WriteSettings(strip_metadata=True))
    assert read_image(stripped).text == ()


def test_exif_in_a_text_is_exif_and_no_text():
    block = samples.exif_block(orientation=6)
    raw = b"\nexif\n%8d\n" % len(block) + block.hex().encode()
    for kind, content in ((b"tEXt", raw), (b"zTXt", b"\0" + zlib.compress(raw))):
        chunk = (kind, b"Raw profile type exif\0" + content)
        image = read_image(samples.png_bytes(samples.noise(4, 6, 3), 2, chunk, bits=8))
        assert (image.height, image.width) == (6, 4)
        assert image.exif == samples.exif_block(orientation=1)
        assert image.text == ()  # where the old orientation would still stand


def test_damaged_deep_metadata_is_left_out():
    data = samples.png_bytes(
        samples.noise(4, 4, 3, np.uint16),
        2,
        (b"iCCP", b"name\0\0" + b"no deflate"),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(samples.XMP)[:30]),
        (b"pHYs", struct.pack(">IIB", 0, 0, 1)),
    )
    image = read_image(data)
    assert (image.icc, image.xmp, image.dpi) == (None, None, None)


def test_an_ancillary_chunk_with_a_wrong_checksum_is_left_out():
    data = samples.png_bytes(
        samples.noise(4, 4, 3, np.uint16), 2, (b"eXIf", samples.exif_block(orientation=1))
    )
    where = data.index(b"eXIf") + 10
    image = read_image(data[:where] + b"\xee" + data[where + 1 :])
    assert image.exif is None


def test_a_deep_animation_says_what_was_taken():
    data = samples.png_bytes(samples.noise(4, 4, 3, np.uint16), 2, (b"acTL", bytes(8)))
    assert read_image(data).notes == ("first frame taken",)


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([1, 2, 3, 4]),
    st.sampled_from([np.uint8, np.uint16]),
    st.sampled_from([0, 1, 6, 9]),
    st.sampled_from(["noise", "flat", "smooth"]),
)
def test_any_image_survives(
    height: int, width: int, channels: int, dtype: Any, level: int, content: str
):
    image = _image(channels, dtype, height, width, seed=height * width)
    if content != "noise":
        ramp = np.add.outer(np.arange(height) * 3, np.arange(width) * 5)[..., None] % 256
        image = image.with_pixels(
            np.broadcast_to(ramp * (content == "smooth"), image.pixels.shape).astype(dtype),
            image.alpha,
        )
    data = encode_image(image, "png", WriteSettings(compress_level=level))
    assert np.array_equal(np.asarray(read_image(data)), np.asarray(image))
    if dtype == np.uint8:
        with pillow.open(io.BytesIO(data)) as img:
            assert np.array_equal(np.asarray(img), np.asarray(image))


def test_filters_make_smooth_images_small():
    ramp = np.add.outer(np.arange(300), np.arange(400))[..., None].repeat(3, 2).astype(np.uint8)
    data = encode_image(Image(ramp), "png")
    assert len(data) < 0.01 * ramp.size
    assert np.array_equal(np.asarray(pillow.open(io.BytesIO(data))), ramp)
