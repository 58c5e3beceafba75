"""Reading: every mode and kind, orientation, notes, limits, and what is wrong with bad files."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import image_samples as samples
import numpy as np
import pytest
import tifffile
from PIL import Image as pillow
from PIL import ImageFile
from PIL import __version__ as pillow_version

from realesr_cli.errors import (
    ImageTooLargeError,
    MissingDependencyError,
    UnreadableImageError,
    UnsupportedImageError,
)
from realesr_cli.image import ifd, plugins
from realesr_cli.image import pillow as pil
from realesr_cli.image.probe import probe
from realesr_cli.image.read import from_array, from_pil, read_image, read_rgb8

PILLOW = int(pillow_version.split(".")[0])
GRADIENT = np.add.outer(np.arange(30) * 4, np.arange(40) * 3).astype(np.uint8)


def _image(mode: str) -> pillow.Image:
    channels = {"L": 1, "1": 1, "P": 1, "LA": 2, "RGBA": 4, "CMYK": 4}.get(mode, 3)
    array = np.stack([np.roll(GRADIENT, 7 * c, 1) for c in range(channels)], -1)
    if mode in ("1", "P"):
        return pillow.fromarray(array[..., 0]).convert(mode)
    return pillow.frombytes(mode, (40, 30), array.tobytes())


LOSSLESS = [
    ("PNG", "1"),
    ("PNG", "L"),
    ("PNG", "LA"),
    ("PNG", "RGB"),
    ("PNG", "RGBA"),
    ("BMP", "1"),
    ("BMP", "L"),
    ("BMP", "RGB"),
    ("TIFF", "1"),
    ("TIFF", "L"),
    ("TIFF", "LA"),
    ("TIFF", "RGB"),
    ("TIFF", "RGBA"),
    ("TGA", "L"),
    ("TGA", "RGB"),
    ("TGA", "RGBA"),
    ("PPM", "L"),
    ("PPM", "RGB"),
    ("GIF", "L"),
    ("PCX", "RGB"),
    ("JPEG2000", "RGB"),
    ("QOI", "RGB"),
    ("SGI", "RGB"),
]


@pytest.mark.parametrize(("kind", "mode"), LOSSLESS)
def test_lossless_kinds_give_the_pixels_that_were_written(kind: str, mode: str):
    img = _image(mode)
    image = read_image(samples.pillow_bytes(img, kind))
    expected = np.asarray(img.convert("L") if mode == "1" else img)
    assert np.array_equal(np.asarray(image), expected)
    assert image.bits == 8
    assert image.gray == (mode in ("1", "L", "LA"))
    assert image.has_alpha == (mode in ("LA", "RGBA"))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_lossy_kinds_are_near(kind: str, mode: str):
    img = _image(mode)
    image = read_image(samples.pillow_bytes(img, kind, quality=95))
    expected = np.asarray(img, np.int16).reshape(30, 40, -1)
    assert image.format == kind
    assert np.abs(image.pixels - expected).mean() < 4
    if kind == "AVIF" and PILLOW < 13:
        pytest.skip("older versions of Pillow read gray AVIF as color")
    if kind != "WEBP":  # which knows no gray
        assert image.gray == (mode == "L")


def test_a_palette_gives_its_colors_and_gray_palettes_give_gray():
    colors = pillow.effect_noise((20, 10), 90).convert("RGB").quantize(16)
    colors.putpalette(np.random.default_rng(1).integers(0, 256, 48, dtype=np.uint8).tobytes())
    image = read_image(samples.pillow_bytes(colors, "PNG"))
    assert np.array_equal(image.pixels, np.asarray(colors.convert("RGB")))
    assert not image.gray
    gray = pillow.effect_noise((20, 10), 90).quantize(16)
    assert gray.mode == "P"
    image = read_image(samples.pillow_bytes(gray, "PNG"))
    assert image.gray
    assert np.array_equal(image.pixels[..., 0], np.asarray(gray.convert("L")))


@pytest.mark.parametrize("transparency", [2, bytes([255, 128, 0, 7])])
def test_a_palette_with_transparency_gives_alpha(transparency: int | bytes):
    indices = np.tile(np.arange(4, dtype=np.uint8), (5, 3))
    img = pillow.fromarray(indices).convert("P")
    img.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    image = read_image(samples.pillow_bytes(img, "PNG", transparency=transparency))
    table = [255, 255, 0, 255] if transparency == 2 else list(transparency)
    assert image.alpha is not None
    assert np.array_equal(image.alpha, np.array(table, np.uint8)[indices])
    assert np.array_equal(image.pixels[0, 0], [255, 0, 0])


def test_a_transparent_color_gives_alpha():
    rgb = samples.noise(6, 5, 3)
    image = read_image(
        samples.pillow_bytes(pillow.fromarray(rgb), "PNG", transparency=tuple(rgb[2, 3].tolist()))
    )
    assert image.alpha is not None
    assert image.alpha[2, 3] == 0
    assert np.count_nonzero(image.alpha == 255) == 29
    gray = GRADIENT[:6, :5]
    image = read_image(samples.pillow_bytes(pillow.fromarray(gray), "PNG", transparency=8))
    assert image.gray
    assert image.alpha is not None
    assert np.array_equal(image.alpha == 0, gray == 8)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_transparent_gray_below_eight_bits_is_found(bits: int):
    values = np.arange(16) % 2**bits
    packed = int("".join(f"{v:0{bits}b}" for v in values), 2).to_bytes(2 * bits, "big")
    header = struct.pack(">IIBBBBB", 16, 1, bits, 0, 0, 0, 0)
    chunks = [
        (b"IHDR", header),
        (b"tRNS", struct.pack(">H", 1)),
        (b"IDAT", zlib.compress(b"\0" + packed)),
        (b"IEND", b""),
    ]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(samples.png_chunk(*c) for c in chunks)
    image = read_image(data)
    assert np.array_equal(image.pixels[0, :, 0], values * 255 // (2**bits - 1))
    assert image.alpha is not None
    assert np.array_equal(image.alpha[0] == 0, values == 1)


def test_cmyk_becomes_srgb_and_says_so():
    inks = pillow.new("CMYK", (8, 8), (255, 0, 0, 0))
    for kind in ("JPEG", "TIFF"):
        image = read_image(samples.pillow_bytes(inks, kind))
        assert image.channels == 3
        red, green, blue = image.pixels[4, 4]
        assert red < 60 < green
        assert blue > 60
        assert any("CMYK" in note and "approximate" in note for note in image.notes)
        assert image.icc is None


def test_lab_becomes_srgb_and_says_so():
    lab = pillow.merge("LAB", [pillow.new("L", (8, 8), v) for v in (136, 128, 128)])
    image = read_image(samples.pillow_bytes(lab, "TIFF"))
    # L* = 136 / 2.55 = 53.3 is the gray of sRGB 127.
    assert np.abs(image.pixels.astype(int) - 127).max() <= 2
    assert image.notes == ("LAB converted to sRGB",)


@pytest.mark.skipif(PILLOW < 13, reason="older versions of Pillow refuse it")
def test_ycbcr_tiff_is_read_as_rgb():
    img = _image("RGB")
    image = read_image(samples.pillow_bytes(img.convert("YCbCr"), "TIFF"))
    assert np.abs(image.pixels.astype(int) - np.asarray(img)).max() <= 4


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_the_first_of_several_frames_is_taken_with_a_word(kind: str):
    frames = [pillow.new("L", (8, 6), v) for v in (250, 120, 10)]
    data = samples.pillow_bytes(frames[0], kind, save_all=True, append_images=frames[1:])
    image = read_image(data)
    assert np.abs(image.pixels.astype(int) - 250).max() <= 2
    what = {"TIFF": "first page", "MPO": "main image"}.get(kind, "first frame")
    assert image.notes == ((f"{what} taken",) if kind == "GIF" else (f"{what} of 3 taken",))


def _upright_image() -> np.ndarray:
    return samples.noise(6, 9, 3, seed=5) // 4 * 4


def _stored(orientation: int) -> np.ndarray:
    """What a camera stores so that the orientation makes the image upright again.

    Source: the table of Exif 2.32, 4.6.4 A: where row 0 and column 0 of the stored pixels belong.
    """
    upright = _upright_image()
    rows_are, columns_are = {
        1: ("top", "left"),
        2: ("top", "right"),
        3: ("bottom", "right"),
        4: ("bottom", "left"),
        5: ("left", "top"),
        6: ("right", "top"),
        7: ("right", "bottom"),
        8: ("left", "bottom"),
    }[orientation]
    height, width = upright.shape[:2]
    edge = {"top": 0, "bottom": height - 1, "left": 0, "right": width - 1}
    if rows_are in ("top", "bottom"):
        ys = np.abs(edge[rows_are] - np.arange(height))[:, None]
        xs = np.abs(edge[columns_are] - np.arange(width))[None]
    else:
        xs = np.abs(edge[rows_are] - np.arange(width))[:, None]
        ys = np.abs(edge[columns_are] - np.arange(height))[None]
    return np.ascontiguousarray(upright[ys, xs])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "PNG16", "TIFF16", "JPEG", "XMP"])
def test_all_orientations_are_applied_and_reset(orientation: int, kind: str):
    stored = _stored(orientation)
    block = samples.exif_block(orientation=orientation)
    wide = stored.astype(np.uint16) * 257
    exif = b"Exif\0\0" + block
    if kind == "PNG16":
        data = samples.png_bytes(wide, 2, (b"eXIf", block))
    elif kind == "TIFF16":
        buffer = io.BytesIO()
        tifffile.imwrite(
            buffer, wide, photometric="rgb", extratags=[(274, 3, 1, orientation, True)]
        )
        data = buffer.getvalue()
    elif kind == "XMP":
        xmp = samples.XMP.replace(b'Orientation="1"', b'Orientation="%d"' % orientation)
        data = samples.pillow_bytes(pillow.fromarray(stored), "WEBP", lossless=True, xmp=xmp)
    else:
        options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}
        img = pillow.fromarray(stored)
        data = samples.pillow_bytes(img, kind, exif=exif, **options.get(kind, {}))
    image = read_image(data)
    pixels = image.pixels // 257 if image.bits == 16 else image.pixels
    assert pixels.shape == (6, 9, 3)
    tolerance = 3 if kind == "JPEG" else 0
    assert np.abs(pixels.astype(int) - _upright_image()).max() <= tolerance
    if image.exif is not None:
        tags = pillow.Exif()
        tags.load(image.exif)
        assert tags.get(274, 1) == 1
    if image.xmp is not None:
        assert b'Orientation="1"' in image.xmp


def test_alpha_turns_with_the_color():
    rgba = np.dstack([_stored(6), _stored(6)[..., 0]])
    block = b"Exif\0\0" + samples.exif_block(orientation=6)
    image = read_image(samples.pillow_bytes(pillow.fromarray(rgba), "PNG", exif=block))
    assert image.alpha is not None
    assert np.array_equal(image.alpha, _upright_image()[..., 0])


@pytest.mark.parametrize("name", ["früh am Morgen.png", "写真 №1.png", "🌲.png", "a\u0301.png"])
def test_any_unicode_name_is_read(tmp_path: Path, name: str):
    path = tmp_path / name
    path.write_bytes(samples.png_bytes(samples.noise(4, 5, 3, np.uint16), 2))
    assert read_image(path).bits == 16
    assert read_image(str(path)).width == 5


def test_sources_may_be_paths_bytes_and_streams(tmp_path: Path):
    data = samples.pillow_bytes(_image("RGB"), "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with path.open("rb") as stream:
        images = [read_image(s) for s in (path, str(path), data, io.BytesIO(data), stream)]
    assert all(np.array_equal(i.pixels, images[0].pixels) for i in images)


# -- what is refused ---------------------------------------------------------------------------


def test_missing_empty_and_folders_are_named(tmp_path: Path):
    (tmp_path / "empty.png").touch()
    for name, reason in (("gone.png", "no such file"), ("empty.png", "empty"), ("", "folder")):
        with pytest.raises(UnreadableImageError, match=reason) as error:
            read_image(tmp_path / name)
        assert str(tmp_path) in str(error.value)
    with pytest.raises(UnreadableImageError, match="cannot be read"):
        read_image("a\0b.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
@pytest.mark.parametrize("function", [read_image, probe])
def test_only_regular_files_are_read(tmp_path: Path, function: Callable[[Path], object]):
    os.mkfifo(tmp_path / "pipe.png")  # opening it would wait for a writer for ever
    (tmp_path / "endless.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "endless.png"):
        with pytest.raises(UnreadableImageError, match=f"{name}.* regular file"):
            function(tmp_path / name)
    (tmp_path / "link.png").symlink_to("image.png")
    (tmp_path / "image.png").write_bytes(samples.pillow_bytes(_image("RGB"), "PNG"))
    function(tmp_path / "link.png")


class _Endless(io.RawIOBase):
    given = 0

    def read(self, size: int = -1) -> bytes:
        assert 0 < size <= 2**20
        self.given += size
        return b"\x89PNG" * (size // 4)


@pytest.mark.parametrize("function", [read_image, probe])
def test_a_stream_without_end_is_not_read_for_ever(function: Callable[..., object]):
    stream = _Endless()
    with pytest.raises(ImageTooLargeError, match="bytes"):
        function(stream, max_pixels=1000)
    assert stream.given < 70 * 2**20


def test_a_file_larger_than_its_pixels_can_be_is_refused(tmp_path: Path):
    path = tmp_path / "large.png"
    path.write_bytes(samples.pillow_bytes(_image("RGB"), "PNG"))
    os.truncate(path, 70 * 2**20)
    with pytest.raises(ImageTooLargeError, match=r"large\.png.*bytes"):
        read_image(path, max_pixels=1000)
    assert read_image(path).width == 40


def test_text_named_png_is_called_text(tmp_path: Path):
    path = tmp_path / "notes.png"
    path.write_text("Dear diary,\nits only about ümlauts today.\n" * 40, encoding="utf-8")
    with pytest.raises(UnreadableImageError, match="text"):
        read_image(path)


def test_bytes_of_no_kind_are_refused():
    with pytest.raises(UnreadableImageError, match="known format"):
        read_image(bytes(range(1, 200)))


def _large(kind: str) -> bytes:
    if kind == "PNG16":
        return samples.png_bytes(samples.noise(60, 50, 3, np.uint16), 2)
    if kind == "PPM16":
        return b"P6 50 60 65535\n" + samples.noise(60, 50, 3, np.uint16).tobytes()
    img = pillow.fromarray(samples.noise(60, 50, 3))
    options = {"compression": "tiff_lzw"} if kind == "TIFF" else {}
    return samples.pillow_bytes(img, kind, **options)


@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "PNG16", "PPM16", "WEBP", "TIFF", "AVIF", "BMP", "GIF"]
)
@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
def test_files_cut_off_are_errors(kind: str, part: float):
    data = _large(kind)
    with pytest.raises(UnreadableImageError):
        read_image(data[: int(len(data) * part)])


def test_progressive_jpeg_cut_off_is_an_error():
    data = samples.pillow_bytes(
        pillow.fromarray(samples.noise(60, 50, 3)), "JPEG", progressive=True
    )
    with pytest.raises(UnreadableImageError, match="truncated"):
        read_image(data[: len(data) * 2 // 3])


@pytest.mark.parametrize("missing", ["row", "end", "checksum", "stream", "header"])
def test_damaged_deep_png_is_an_error_of_its_own(missing: str):
    array = samples.noise(8, 9, 3, np.uint16)
    data = samples.png_bytes(array, 2)
    if missing == "row":
        data = samples.png_bytes(array[:-1], 2)
        data = data[:16] + struct.pack(">II", 9, 8) + data[24:]
        data = data[:29] + struct.pack(">I", zlib.crc32(data[12:29])) + data[33:]
        reason = "rows of pixels are missing"
    elif missing == "end":
        data, reason = data[:-12], "its end is missing"
    elif missing == "checksum":
        where = data.index(b"IDAT") + 30
        data = data[:where] + bytes([data[where] ^ 1]) + data[where + 1 :]
        reason = "IDAT chunk fails its checksum"
    elif missing == "stream":
        start = data.index(b"IDAT") - 4
        broken = samples.png_chunk(b"IDAT", b"x\x9c" + b"\xff" * 20)
        data = data[:start] + broken + samples.png_chunk(b"IEND", b"")
        reason = "PNG is damaged"
    else:
        data, reason = data[:24] + bytes([16, 9]) + data[26:], "header is damaged"
    with pytest.raises(UnreadableImageError, match=reason):
        read_image(data)


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        (b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"%PDF-1.7\n", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
        (b"v/1\x01", "OpenEXR"),
        (b"#?RADIANCE\n", "Radiance HDR"),
        (b"8BPS\0\x02", "PSB"),
        (b"8BPS\0\x01" + bytes(6) + b"\0\x03\0\0\0\x09\0\0\0\x09\0\x10\0\x03", "16 or 32 bits"),
        (b"gimp xcf v011", "GIMP"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"PK\x03\x04rest", "archive"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "video"),
    ],
)
def test_known_kinds_that_are_not_handled_are_named(start: bytes, reason: str):
    with pytest.raises(UnsupportedImageError, match=reason):
        read_image(start + bytes(64))


def test_postscript_never_reaches_ghostscript():
    head = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"
    assert pil.open_image(io.BytesIO(head)) is None


def _bomb(kind: str) -> bytes:
    side = 40_000
    if kind in ("PNG", "PNG16"):
        header = struct.pack(">IIBBBBB", side, side, 16 if kind == "PNG16" else 8, 2, 0, 0, 0)
        chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(samples.png_chunk(*c) for c in chunks)
    if kind == "WEBP":
        return (
            b"RIFF" + struct.pack("<I", 30) + b"WEBPVP8X" + struct.pack("<II", 10, 0)
            + (16382).to_bytes(3, "little") + (16382).to_bytes(3, "little") + bytes(8)
        )  # fmt: skip
    if kind == "PPM16":
        return b"P6 %d %d 65535\n" % (side, side)
    img = samples.pillow_bytes(pillow.new("RGB", (16, 16)), kind)
    if kind == "GIF":
        return img[:6] + struct.pack("<HH", side, side) + img[10:]
    assert kind == "JPEG"
    where = img.index(b"\xff\xc0") + 5
    return img[:where] + struct.pack(">HH", side, side) + img[where + 4 :]


@pytest.mark.parametrize("kind", ["PNG", "PNG16", "WEBP", "PPM16", "GIF", "JPEG"])
def test_bombs_are_refused_from_their_header(kind: str):
    with pytest.raises(ImageTooLargeError, match="max_pixels"):
        read_image(_bomb(kind))


def test_a_webp_bomb_is_not_even_opened(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pil, "open_image", None)  # opening takes memory for the whole frame
    for function in (read_image, probe):
        with pytest.raises(ImageTooLargeError, match="max_pixels"):
            function(_bomb("WEBP"))


def test_the_limit_is_ours_and_pillows_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pillow, "MAX_IMAGE_PIXELS", 100)
    data = samples.pillow_bytes(pillow.new("L", (40, 30)), "PNG")
    assert read_image(data).width == 40
    assert pillow.MAX_IMAGE_PIXELS == 100
    with pytest.raises(ImageTooLargeError, match=r"1,200 pixels .* 1,199"):
        read_image(data, max_pixels=1199)
    assert read_image(data, max_pixels=1200).width == 40
    assert read_image(data, max_pixels=None).width == 40


def test_nothing_of_the_process_is_changed():
    filters = list(warnings.filters)
    read_image(samples.pillow_bytes(_image("RGB"), "JPEG"))
    assert warnings.filters == filters
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_pillows_warnings_become_notes():
    broken = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(20)
    data = samples.pillow_bytes(_image("RGB"), "JPEG", exif=broken)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = read_image(data)
    assert image.exif is None
    assert any("EXIF" in note for note in image.notes)
    assert image.pixels.shape == (30, 40, 3)


def test_warnings_while_decoding_become_notes_too():
    array = samples.noise(4, 5, 3)
    entries = {256: 5, 257: 4, 259: 1, 262: 2, 277: 3, 278: 4, 279: 60, 273: 8, 34665: 9_999}
    made = [ifd.integers("<", tag, ifd.LONG, value) for tag, value in entries.items()]
    made.append(ifd.integers("<", 258, ifd.SHORT, 8, 8, 8))
    data = b"II*\0" + struct.pack("<I", 68) + array.tobytes() + ifd.build(made, "<", 68)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = read_image(data)
    assert np.array_equal(image.pixels, array)
    assert image.exif is None
    assert any("EXIF" in note for note in image.notes)


def test_warnings_of_others_pass_through_while_pillow_is_listened_to():
    with pytest.warns(UserWarning, match="of the host"), pil.capture_warnings() as heard:
        warnings.warn("of the host", UserWarning, stacklevel=1)
    assert heard.notes == []


def test_missing_opencv_names_the_package(monkeypatch: pytest.MonkeyPatch):
    def without(name: str) -> None:
        raise ImportError("libGL.so.1: cannot open shared object file")

    monkeypatch.setattr(plugins.importlib, "import_module", without)
    eight = read_image(samples.pillow_bytes(_image("RGBA"), "PNG"))
    gray = read_image(samples.png_bytes(samples.noise(4, 4, 1, np.uint16), 0))
    assert (eight.bits, gray.bits) == (8, 16)
    with pytest.raises(MissingDependencyError, match=r"libgl1.*opencv-python-headless"):
        read_image(samples.png_bytes(samples.noise(4, 4, 3, np.uint16), 2))


@pytest.mark.parametrize("dpi", [(0, 0), (1, 1), (300, 0), None, "x", (float("nan"), 72), (72,)])
def test_a_resolution_that_says_nothing_is_none(dpi: object):
    img = _image("L")
    img.info["dpi"] = dpi
    assert from_pil(img).dpi is None


def _with_resolution(unit: int) -> bytes:
    tags = pillow.Exif()
    tags[274], tags[282], tags[283], tags[296] = 6, 200, 100, unit
    return tags.tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "MPO"])
def test_a_resolution_is_not_made_up(kind: str):
    img = pillow.fromarray(_stored(6))
    data = samples.pillow_bytes(img, kind, exif=b"Exif\0\0" + samples.exif_block(orientation=6))
    assert read_image(data).dpi is None
    data = samples.pillow_bytes(img, kind, exif=_with_resolution(2))
    assert read_image(data).dpi == pytest.approx((100, 200))
    data = samples.pillow_bytes(img, kind, exif=_with_resolution(3))
    assert read_image(data).dpi == pytest.approx((254, 508))
    data = samples.pillow_bytes(img, kind, exif=_with_resolution(2), dpi=(300, 150))
    assert read_image(data).dpi == pytest.approx((150, 300))


@pytest.mark.parametrize("kind", ["PNG", "PNG16", "TIFF", "TIFF16"])
def test_the_resolution_turns_with_the_pixels(kind: str):
    stored = _stored(6)
    exif = b"Exif\0\0" + samples.exif_block(orientation=6)
    if kind == "PNG16":
        physical = struct.pack(">IIB", 11811, 5906, 1)
        chunks = [(b"pHYs", physical), (b"eXIf", exif[6:])]
        data = samples.png_bytes(stored.astype(np.uint16), 2, *chunks)
    elif kind == "TIFF16":
        buffer = io.BytesIO()
        options = {"resolution": (300, 150), "resolutionunit": 2}
        turned = [(274, 3, 1, 6, True)]
        tifffile.imwrite(
            buffer, stored.astype(np.uint16), photometric="rgb", extratags=turned, **options
        )
        data = buffer.getvalue()
    else:
        data = samples.pillow_bytes(pillow.fromarray(stored), kind, exif=exif, dpi=(300, 150))
    assert read_image(data).dpi == pytest.approx((150, 300), abs=0.02)


# -- Pillow and arrays -------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA"])
def test_images_of_pillow_keep_their_pixels(mode: str):
    img = _image(mode)
    image = from_pil(img)
    expected = np.asarray(img.convert("L") if mode == "1" else img)
    assert np.array_equal(np.asarray(image), expected)


def test_deep_gray_of_pillow_keeps_its_depth():
    deep = samples.noise(5, 4, 1, np.uint16)[..., 0]
    image = from_pil(pillow.fromarray(deep))
    assert np.array_equal(image.pixels[..., 0], deep)
    floats = samples.noise(5, 4, 1, np.float32)[..., 0]
    assert np.array_equal(from_pil(pillow.fromarray(floats)).pixels[..., 0], floats)


def test_premultiplied_images_of_pillow_are_divided():
    img = pillow.new("RGBA", (4, 4), (200, 100, 50, 128))
    image = from_pil(img.convert("RGBa"))
    assert np.abs(image.pixels.astype(int) - [200, 100, 50]).max() <= 1


def test_the_orientation_of_a_image_of_pillow_is_applied():
    img = pillow.fromarray(_stored(8))
    img.getexif()[274] = 8
    assert np.array_equal(from_pil(img).pixels, _upright_image())
    data = samples.pillow_bytes(img, "TIFF", exif=img.getexif())
    image = from_pil(pillow.open(io.BytesIO(data)))
    assert np.array_equal(image.pixels, _upright_image())


def test_integers_without_a_range_are_refused():
    with pytest.raises(UnsupportedImageError, match="no known range"):
        from_pil(pillow.new("I", (4, 4), 70000))


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 2), (5, 7, 3), (5, 7, 4)])
@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "f2", "f4", "f8"])
def test_arrays_go_in_and_come_out(shape: tuple[int, ...], dtype: str):
    channels = shape[2] if len(shape) == 3 else 1
    array = samples.noise(5, 7, channels, np.dtype(dtype).newbyteorder("=")).reshape(shape)
    image = from_array(array.astype(dtype))
    assert image.channels == (1 if channels < 3 else 3)
    assert image.has_alpha == (channels in (2, 4))
    assert image.bits == {"u1": 8, "u2": 16}.get(dtype[-2:], 32)
    back = np.asarray(image)
    assert np.array_equal(back.reshape(shape), array.astype(back.dtype))
    assert back.dtype.isnative


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((3, 5, 7), np.uint8), "move the first axis"),
        (np.zeros((5,), np.uint8), "expected an array of shape"),
        (np.zeros((0, 5, 3), np.uint8), "expected an array of shape"),
        (np.zeros((5, 5, 3), np.int32), "got int32"),
        (np.zeros((5, 5, 3), bool), "got bool"),
        (np.full((5, 5, 3), np.nan), "NaN"),
        (np.full((5, 5), np.inf, np.float32), "infinite"),
        (np.full((5, 5), 255.0), "divide 0..255 by 255"),
        (np.full((5, 5), -0.1), "0..1, got -0.1"),
    ],
)
def test_arrays_that_are_no_images_are_refused_with_the_reason(array: np.ndarray, reason: str):
    with pytest.raises(UnsupportedImageError, match=reason):
        from_array(array)


def test_rounding_errors_of_floats_are_clipped():
    image = from_array(np.array([[-1e-7, 1 + 1e-7]]))
    assert image.pixels.min() == 0
    assert image.pixels.max() == 1


def test_any_depth_and_gray_become_eight_bit_color():
    deep = np.array([65535, 128, 129, 0, 300, 65407, 65406, 257, 1], ">u2")
    assert read_rgb8(b"P6 3 1 65535\n" + deep.tobytes()).tolist() == [
        [[255, 0, 1], [0, 1, 255], [254, 1, 0]]
    ]
    held = io.BytesIO()
    pillow.frombytes("LA", (2, 1), bytes([7, 0, 9, 255])).save(held, "PNG")
    assert read_rgb8(held.getvalue()).tolist() == [[[7, 7, 7], [9, 9, 9]]]
