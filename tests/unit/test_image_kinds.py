"""Kinds with a reader of their own, what first bytes tell, and damage of every sort."""

from __future__ import annotations

import contextlib
import io
import struct
import subprocess
import sys
import threading
import warnings
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
from realesr_cli.image.color import tone_curve
from realesr_cli.image.probe import probe
from realesr_cli.image.read import from_pil, read_image
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


def test_reduced_depth_is_reported():
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


@pytest.mark.parametrize("transparent", [False, True])
def test_a_palette_that_is_missing_is_damage(transparent: bool):
    chunks = ((b"tRNS", b"\0"),) if transparent else ()
    data = samples.png_bytes(samples.noise(4, 6, 1), 3, *chunks, bits=8)
    with pytest.raises(UnreadableImageError, match="palette"):
        read_image(data)


def test_twelve_bits_are_stretched():
    values = [0, 1, 2048, 4095]
    packed = int("".join(f"{v:012b}" for v in values), 2).to_bytes(6, "big")
    entries = {256: 4, 257: 1, 258: 12, 259: 1, 262: 1, 277: 1, 278: 1, 279: 6, 273: 8}
    made = [ifd.integers("<", tag, ifd.LONG, value) for tag, value in entries.items()]
    data = b"II*\0" + struct.pack("<I", 14) + packed + ifd.build(made, "<", 14)
    image = read_image(data)
    assert image.pixels[0, :, 0].tolist() == [0, 16, 32776, 65535]
    assert probe(data).bits == 16


def test_an_icon_is_as_large_as_what_it_contains():
    data = bytearray(samples.pillow_bytes(pillow.new("RGB", (16, 16)), "ICO", sizes=[(16, 16)]))
    inner = samples.pillow_bytes(pillow.new("1", (1300, 1300)), "PNG")
    struct.pack_into("<II", data, 14, len(inner), 22)
    icon = bytes(data[:22]) + inner
    assert read_image(icon, max_pixels=None).width == 1300
    with pytest.raises(ImageTooLargeError, match="1,690,000"):
        read_image(icon, max_pixels=1_000_000)


# -- first bytes -------------------------------------------------------------------------------


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_the_size_of_a_webp_is_in_its_first_bytes(lossless: bool, mode: str):
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


def test_text_is_distinguished_from_bytes():
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


def _deep_tiff(changes: dict[int, Any], content: bytes = bytes(72)) -> bytes:
    """A TIFF of 4 x 3 pixels with 16-bit color; tags that are None are left out."""
    tags: dict[int, Any] = {256: 4, 257: 3, 259: 1, 262: 2, 273: 8, 277: 3, 278: 3, 279: 72}
    tags |= {258: (16, 16, 16)} | changes
    entries = []
    for tag, value in tags.items():
        if isinstance(value, ifd.IfdEntry):
            entries.append(value)
        elif value is not None:
            values = value if isinstance(value, tuple) else (value,)
            entries.append(ifd.integers("<", tag, ifd.LONG, *values))
    at = 8 + len(content)
    return b"II*\0" + struct.pack("<I", at) + content + ifd.build(entries, "<", at)


@pytest.mark.parametrize(
    "changes",
    [
        {279: (36, 36)},  # two sizes, one offset
        {273: (8, 44), 278: 2},  # two offsets, one size
        {279: None},
        {273: ifd.make_entry(273, 9, struct.pack("<i", -20))},
        {279: ifd.make_entry(279, 9, struct.pack("<i", -72))},
        {256: ifd.make_entry(256, 9, struct.pack("<i", -4))},
        {278: ifd.make_entry(278, 9, struct.pack("<i", -3))},
        {322: 16, 323: ifd.make_entry(323, 9, struct.pack("<i", -16)), 324: 8, 325: 72},
        {256: 2**31, 257: 2**31},
        {277: 0},
        {277: 2**20},
        {258: (16, 16, 8)},
    ],
)
def test_tiff_directories_that_lie_give_one_error(changes: dict[int, Any]):
    data = _deep_tiff(changes)
    for function in (read_image, probe):
        with contextlib.suppress(ImageError):
            function(data)


def test_a_tiff_that_claims_more_than_it_can_contain_allocates_nothing():
    side = 15_000
    depth = (64,) * 16
    data = _deep_tiff({256: side, 257: side, 258: depth, 277: 16, 278: side, 339: 3, 259: 8})
    assert len(data) < 400
    with pytest.raises(UnreadableImageError, match="truncated"):
        read_image(data)


def test_a_directory_offset_beyond_all_numbers_is_damage():
    with pytest.raises(UnreadableImageError, match="damaged"):
        read_image(b"II+\0\x08\0\0\0" + struct.pack("<Q", 2**63 + 9) + bytes(64))


def test_exif_that_ends_inside_its_last_entry_is_left_out():
    block = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIH", 274, 3, 1, 6)  # two bytes short
    data = samples.png_bytes(samples.noise(4, 6, 3), 2, (b"eXIf", block), bits=8)
    image = read_image(data)
    assert image.exif is None
    assert any("EXIF" in note for note in image.notes)
    assert (image.height, image.width) == (6, 4)  # The orientation can be read all the same.
    header = probe(data)
    assert (header.height, header.width) == (6, 4)


@pytest.mark.parametrize("offset", [-4, -1, 2**31 - 1])
def test_exif_that_points_outside_is_no_obstacle(offset: int):
    entry = struct.pack("<HHIi", 34665, 9, 1, offset)
    block = b"II*\0\x08\0\0\0\x01\0" + entry + bytes(4)
    image = read_image(samples.png_bytes(samples.noise(4, 6, 3), 2, (b"eXIf", block), bits=8))
    for format in ("png", "tiff"):
        assert read_image(encode_image(image, format)).width == 6


def _damaged_blocks() -> list[bytes]:
    block = samples.exif_block(orientation=6, thumbnail=b"thumb" * 4)
    cuts = [block[:end] for end in range(8, len(block), 7)]
    return cuts + [
        block[:at] + b"\xff\xff\xff\x7f" + block[at + 4 :] for at in range(8, len(block) - 4, 5)
    ]


@pytest.mark.parametrize("kind", ["PNG", "PNG16", "JPEG", "WEBP", "TIFF"])
def test_sizes_agree_whatever_the_exif_is(kind: str):
    img = pillow.fromarray(samples.noise(4, 6, 3))
    for block in _damaged_blocks():
        if kind.startswith("PNG"):
            bits = 16 if kind == "PNG16" else 8
            array = samples.noise(4, 6, 3, f"u{bits // 8}")
            data = samples.png_bytes(array, 2, (b"eXIf", block), bits=bits)
            broken = bytearray(data)  # a chunk that fails its checksum counts for neither
            broken[broken.index(b"eXIf") + 6] ^= 1
            files = [data, bytes(broken)]
        elif kind == "TIFF":
            files = [_deep_tiff({34665: 9_000, 274: 6})]
        else:
            files = [samples.pillow_bytes(img, kind, exif=b"Exif\0\0" + block)]
        for data in files:
            image, header = read_image(data), probe(data)
            assert (header.height, header.width) == (image.height, image.width)


def test_damaged_exif_is_no_obstacle_for_any_output():
    for block in _damaged_blocks():
        image = Image(samples.noise(8, 8, 3), exif=block)
        for format in ("png", "jpg", "webp", "tiff", "avif"):
            assert read_image(encode_image(image, format)).width == 8


def test_damaged_tags_of_a_host_program_are_left_out():
    for block in _damaged_blocks():
        img = pillow.new("RGB", (6, 4))
        img.info["exif"] = b"Exif\0\0" + block
        assert from_pil(img).width in (4, 6)
        img = pillow.new("RGB", (6, 4))
        img.getexif()[40_000] = object()  # which nobody can write
        assert from_pil(img).exif is None


@pytest.mark.parametrize("number", [b"1" * 5000, b"7" * 9 + b"0"])
def test_numbers_of_many_digits_mean_nothing(number: bytes):
    packet = samples.XMP.replace(b'Orientation="1"', b'Orientation="%s"' % number)
    chunk = (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet)
    image = read_image(samples.png_bytes(samples.noise(4, 6, 3), 2, chunk, bits=8))
    assert (image.height, image.xmp) == (4, packet)
    with pytest.raises(ImageError):
        read_image(b"P5 " + number + b" 4 65535\n" + bytes(64))


@pytest.mark.parametrize("name", ["rXYZ", "rTRC", "A2B0", "desc"])
@pytest.mark.parametrize("kind", [b"XYZ ", b"curv", b"para", b"mft1", b"mAB ", b"text", b"zzzz"])
def test_profile_tags_of_a_wrong_type_are_harmless(name: str, kind: bytes):
    tags = {"wtpt": samples.xyz_tag(0.9642, 1, 0.8249), name: kind + bytes(40)}
    for space, channels in (("RGB", 3), ("CMYK", 4), ("GRAY", 1)):
        profile = samples.profile(space, tags)
        mode = {1: "L", 3: "RGB", 4: "CMYK"}[channels]
        img = pillow.frombytes(mode, (6, 4), bytes(24 * channels))
        image = read_image(samples.pillow_bytes(img, "JPEG", icc_profile=profile))
        assert tone_curve(profile) is None
        assert image.width == 6


@pytest.mark.parametrize(
    "curve",
    [
        samples.parametric_tag(0, 32767),
        samples.parametric_tag(3, 32767, 32767, 32767, 0, 0),
        samples.parametric_tag(4, 2.0, 1.0, 0.0, 1, 0.5, 30000, 0),
        samples.parametric_tag(2, 0.001, 1, 0.5, 30000),
    ],
)
def test_curves_without_sense_are_not_used(curve: bytes):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tone_curve(samples.gray_profile(curve)) is None


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


def test_errors_of_plugins_are_reported_as_damage(monkeypatch: pytest.MonkeyPatch):
    def broken(*_: Any) -> None:
        raise AttributeError("something inside")

    pillow.init()
    data = samples.pillow_bytes(pillow.new("RGB", (4, 4)), "BMP")
    monkeypatch.setitem(pillow.OPEN, "BMP", (broken, pillow.OPEN["BMP"][1]))
    with pytest.raises(UnreadableImageError, match="header is damaged: something inside"):
        read_image(data)


def test_what_pillow_logs_is_not_printed():
    code = (
        "import sys\n"
        "from realesr_cli.errors import ImageError\n"
        "from realesr_cli.image.read import read_image\n"
        "try: read_image(sys.stdin.buffer.read())\n"
        "except ImageError: print('refused')\n"
    )
    data = _deep_tiff({258: (8,) * 12, 277: 12, 279: 144}, bytes(144))
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True)
    assert (done.stdout.strip(), done.stderr) == (b"refused", b"")


@pytest.mark.parametrize("bits", [8, 16])
def test_private_tags_of_a_tiff_print_nothing(bits: int, capfd: pytest.CaptureFixture[str]):
    private = {
        tag: ifd.make_entry(tag, 12, struct.pack("<d", 0.5)) for tag in (33550, 42113, 50000)
    }
    data = _deep_tiff({258: (bits,) * 3, 279: 9 * bits // 2} | private)
    assert read_image(data).bits == bits
    assert capfd.readouterr() == ("", "")


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


def test_pillows_own_limit_inside_a_plugin_is_reported_as_ours(monkeypatch: pytest.MonkeyPatch):
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
