"""Kinds with a reader of their own, what first bytes tell, and damage of every sort."""

from __future__ import annotations

import contextlib
import io
import struct
import threading
from types import SimpleNamespace
from typing import Any

import image_samples as samples
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as pillow

from realesr_cli.errors import (
    ImageError,
    ImageTooLargeError,
    UnreadableImageError,
    UnsupportedImageError,
)
from realesr_cli.image import headers, ifd, plugins, png
from realesr_cli.image import pillow as pil
from realesr_cli.image.probe import probe
from realesr_cli.image.read import read_image
from realesr_cli.image.types import Image
from realesr_cli.image.write import encode_image

# -- PPM and PGM -------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "channels"), [(5, 1), (6, 3)])
@pytest.mark.parametrize("top", [256, 1023, 4095, 65535])
def test_deep_netpbm_is_read_and_stretched(kind: int, channels: int, top: int):
    array = samples.noise(4, 5, channels, np.uint16) % np.uint32(top + 1)
    array.flat[:2] = 0, top
    head = b"P%d # a comment\n5 4\n# another\n%d\n" % (kind, top)
    image = read_image(head + array.astype(">u2").tobytes())
    assert np.array_equal(image.pixels, np.rint(array * (65535 / top)).astype(np.uint16))
    assert image.bits == 16


def test_eight_bit_netpbm_is_left_to_pillow():
    image = read_image(b"P6 2 1 255\n" + bytes(range(6)))
    assert image.pixels.tolist() == [[[0, 1, 2], [3, 4, 5]]]


def test_netpbm_that_contradicts_itself_is_damaged():
    with pytest.raises(UnreadableImageError, match="1000"):
        read_image(b"P5 2 1 1000\n" + struct.pack(">2H", 7, 1001))
    with pytest.raises(UnreadableImageError, match="truncated"):
        read_image(b"P5 2 1 1000\n" + struct.pack(">H", 7))


# -- depth that Pillow reduces -----------------------------------------------------------------


def test_reduced_depth_is_told():
    sgi = bytearray(samples.pillow_bytes(pillow.new("RGB", (4, 4)), "SGI", bpc=2))
    assert sgi[3] == 2
    assert read_image(bytes(sgi)).notes == ("16 bits per channel reduced to 8",)
    assert headers.stored_bits(samples.pillow_bytes(pillow.new("RGB", (4, 4)), "SGI")) == 8
    avif = samples.pillow_bytes(pillow.new("RGB", (16, 16)), "AVIF")
    assert headers.stored_bits(avif) == 8
    where = avif.index(b"pixi") + 9
    assert headers.stored_bits(avif[:where] + b"\x0a" + avif[where + 1 :]) == 10
    jp2 = samples.pillow_bytes(pillow.new("RGB", (16, 16)), "JPEG2000")
    assert headers.stored_bits(jp2) == 8
    where = jp2.index(b"\xff\x4f\xff\x51") + 42
    assert headers.stored_bits(jp2[:where] + b"\x0b" + jp2[where + 1 :]) == 12


def test_deep_inks_are_reduced_with_a_word():
    array = samples.noise(4, 5, 4, np.uint16)
    entries = {256: 5, 257: 4, 259: 1, 262: 5, 277: 4, 278: 4, 279: array.nbytes, 273: 8}
    made = [ifd.integers("<", tag, ifd.LONG, value) for tag, value in entries.items()]
    made.append(ifd.integers("<", 258, ifd.SHORT, 16, 16, 16, 16))
    at = 8 + array.nbytes
    data = b"II*\0" + struct.pack("<I", at) + array.tobytes() + ifd.build(made, "<", at)
    image = read_image(data)
    assert image.bits == 8
    assert "16 bits per channel reduced to 8" in image.notes


def test_twelve_bits_are_stretched():
    values = [0, 1, 2048, 4095]
    packed = int("".join(f"{v:012b}" for v in values), 2).to_bytes(6, "big")
    entries = {256: 4, 257: 1, 258: 12, 259: 1, 262: 1, 277: 1, 278: 1, 279: 6, 273: 8}
    made = [ifd.integers("<", tag, ifd.LONG, value) for tag, value in entries.items()]
    data = b"II*\0" + struct.pack("<I", 14) + packed + ifd.build(made, "<", 14)
    image = read_image(data)
    assert image.pixels[0, :, 0].tolist() == [0, 16, 32776, 65535]
    assert probe(data).bits == 16


# -- first bytes -------------------------------------------------------------------------------


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_the_size_of_a_webp_is_told_by_its_first_bytes(lossless: bool, mode: str):
    img = pillow.frombytes(mode, (37, 21), samples.noise(21, 37, len(mode)).tobytes())
    for options in ({}, {"exif": samples.exif_block()}):
        data = samples.pillow_bytes(img, "WEBP", lossless=lossless, **options)
        header = headers.parse_webp(data[:30])
        assert header is not None
        assert (header.height, header.width) == (21, 37)
        whole = headers.parse_webp(data)
        assert whole is not None
        assert whole.lossless == lossless
    assert headers.parse_webp(b"RIFF") is None
    assert headers.parse_webp(b"RIFF\0\0\0\0WEBPXXXX" + bytes(20)) is None


def test_text_is_told_from_bytes():
    assert headers._looks_like_text("größer\n\tals".encode() * 60)
    assert not headers._looks_like_text(b"abc\x00\x01\x02")
    assert not headers._looks_like_text(b"abc\xff\xfe\xfdabcdefgh")


def test_an_avif_under_the_general_brand_is_no_heic():
    data = samples.pillow_bytes(pillow.new("RGB", (16, 16)), "AVIF")
    general = data[:8] + b"mif1" + data[12:]
    assert plugins.find_plugin(data) is None
    assert plugins.find_plugin(general) is None
    assert plugins.find_plugin(general.replace(b"avif", b"heic")) is plugins.HEIC


# -- damage ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({256: 0}, "states no size"),
        ({278: 0}, "have no size"),
        ({278: 1}, "are missing"),
        ({273: 5_000}, "truncated"),
    ],
)
def test_tiff_directories_that_contradict_themselves(tags: dict[int, int], reason: str):
    entries = {256: 4, 257: 3, 258: 16, 259: 1, 262: 1, 277: 1, 278: 3, 279: 24, 273: 8} | tags
    made = [ifd.integers("<", tag, ifd.LONG, value) for tag, value in entries.items()]
    data = b"II*\0" + struct.pack("<I", 32) + bytes(24) + ifd.build(made, "<", 32)
    with pytest.raises(UnreadableImageError, match=reason):
        read_image(data)


class _BrokenOpenCV(SimpleNamespace):
    error = RuntimeError
    IMREAD_UNCHANGED = -1

    def __init__(self, result: Any) -> None:
        super().__init__()
        self.result = result

    def imdecode(self, *_: Any) -> Any:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (RuntimeError("too large for it"), UnsupportedImageError),
        (None, UnreadableImageError),
        (np.zeros((4, 5, 3), np.uint8), UnsupportedImageError),
        (np.zeros((5, 4, 3), np.uint16), UnsupportedImageError),
    ],
)
def test_what_opencv_returns_is_not_trusted(
    result: Any, expected: type[ImageError], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(png, "load_opencv", lambda _: _BrokenOpenCV(result))
    with pytest.raises(expected):
        read_image(samples.png_bytes(samples.noise(4, 5, 3, np.uint16), 2))


def test_errors_of_plugins_are_told_as_damage(monkeypatch: pytest.MonkeyPatch):
    def broken(*_: Any) -> None:
        raise AttributeError("something inside")

    pillow.init()
    data = samples.pillow_bytes(pillow.new("RGB", (4, 4)), "BMP")
    monkeypatch.setitem(pillow.OPEN, "BMP", (broken, pillow.OPEN["BMP"][1]))
    with pytest.raises(UnreadableImageError, match="header is damaged: something inside"):
        read_image(data)


@pytest.mark.parametrize("where", ["open", "load"])
def test_too_little_memory_is_not_called_damage(where: str, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: Any) -> None:
        raise MemoryError

    pillow.init()
    data = samples.pillow_bytes(pillow.new("RGB", (4, 4)), "BMP")
    if where == "open":
        monkeypatch.setitem(pillow.OPEN, "BMP", (fail, pillow.OPEN["BMP"][1]))
    else:
        monkeypatch.setattr(pillow.OPEN["BMP"][0], "load", fail)
    with pytest.raises(MemoryError):
        read_image(data)


def test_pillows_own_limit_inside_a_plugin_is_told_as_ours(monkeypatch: pytest.MonkeyPatch):
    def bomb(*_: Any) -> None:
        raise pillow.DecompressionBombError("frames too large")

    pillow.init()
    data = samples.pillow_bytes(pillow.new("L", (4, 4)), "GIF")
    monkeypatch.setitem(pillow.OPEN, "GIF", (bomb, pillow.OPEN["GIF"][1]))
    with pytest.raises(ImageTooLargeError, match="frames too large"):
        read_image(data)


def _files() -> list[bytes]:
    img = pillow.fromarray(samples.noise(12, 14, 3))
    exif = b"Exif\0\0" + samples.exif_block(thumbnail=b"thumb" * 4)
    made = [
        samples.pillow_bytes(img, kind, exif=exif, icc_profile=samples.LINEAR)
        for kind in ("JPEG", "PNG", "WEBP", "TIFF")
    ]
    made += [samples.pillow_bytes(img, kind) for kind in ("BMP", "GIF", "TGA", "PPM")]
    for channels in (1, 3):
        deep = Image(
            samples.noise(12, 14, channels, np.uint16),
            samples.noise(12, 14, 1, np.uint16)[..., 0],
            exif=samples.exif_block(),
            xmp=samples.XMP,
        )
        made += [encode_image(deep, "png"), encode_image(deep, "tiff")]
    return made


FILES = _files()


@given(
    st.sampled_from(range(len(FILES))),
    st.lists(st.tuples(st.integers(0, 700), st.binary(min_size=1, max_size=4)), max_size=4),
    st.integers(1, 2000),
)
def test_damage_of_any_sort_is_an_error_of_ours_or_none(
    which: int, damage: list[tuple[int, bytes]], length: int
):
    data = bytearray(FILES[which])
    for where, content in damage:
        data[where : where + len(content)] = content
    data = data[:length]
    for function in (read_image, probe):
        with contextlib.suppress(ImageError):
            function(bytes(data), max_pixels=1_000_000)


def test_eight_threads_read_what_one_reads():
    expected = [read_image(data) for data in FILES]
    found: list[list[Image]] = [[] for _ in range(8)]

    def read(into: list[Image]) -> None:
        into += [read_image(data) for data in FILES]

    threads = [threading.Thread(target=read, args=(into,)) for into in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for images in found:
        for one, other in zip(expected, images, strict=True):
            assert np.array_equal(np.asarray(one), np.asarray(other))
            assert one.notes == other.notes


def test_streams_are_probed_without_losing_their_beginning():
    stream = io.BytesIO(FILES[0])
    assert probe(stream).width == read_image(FILES[0]).width
    assert pil.open_image(io.BytesIO(FILES[1])) is not None
