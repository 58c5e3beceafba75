"""Writing: depth, alpha and metadata per format, settings, and atomic writes."""

from __future__ import annotations

import dataclasses
import errno
import io
import os
import stat
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import image_samples as samples
import numpy as np
import pytest
from PIL import Image as pillow
from PIL import __version__ as pillow_version

from realesr_cli import atomic
from realesr_cli.errors import (
    ConfigError,
    ImageTooLargeError,
    ImageWriteError,
    MissingDependencyError,
    RealesrWarning,
    UnsupportedImageError,
)
from realesr_cli.image import probe as probe_module
from realesr_cli.image import writers
from realesr_cli.image.formats import WRITABLE, WriteSettings
from realesr_cli.image.probe import read_made_by
from realesr_cli.image.read import read_image
from realesr_cli.image.types import Image
from realesr_cli.image.write import encode_image, write_image

PILLOW = int(pillow_version.split(".")[0])
SMOOTH = np.add.outer(np.arange(60), np.arange(80))[..., None] + np.array([0, 40, 80])
SMOOTH = SMOOTH.astype(np.uint8)
CARRYING = ("png", "jpg", "webp", "tiff", "avif")


def _smooth(channels: int = 3, alpha: bool = False, dtype: Any = np.uint8) -> Image:
    factor = {1: 1, 2: 257}[np.dtype(dtype).itemsize]
    pixels = SMOOTH[..., :channels].astype(dtype) * dtype(factor)
    cover = np.linspace(0, np.iinfo(dtype).max, 60 * 80).reshape(60, 80).astype(dtype)
    return Image(np.ascontiguousarray(pixels), cover if alpha else None)


@pytest.mark.parametrize("format", WRITABLE)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_format_is_read_again(format: str, channels: int):
    image = _smooth(channels)
    found = read_image(encode_image(image, format))
    assert found.pixels.shape[:2] == (60, 80)
    assert np.abs(found.pixels.astype(int) - image.pixels).max() <= (0 if format in (
        "png", "tiff", "bmp") else 6)  # fmt: skip
    if format != "webp" and (format, PILLOW) != ("avif", 11):  # which know no gray
        assert found.channels == channels


@pytest.mark.parametrize("format", ["png", "webp", "tiff", "avif"])
def test_alpha_is_kept_where_it_can_be(format: str):
    image = _smooth(3, alpha=True)
    found = read_image(encode_image(image, format))
    assert found.alpha is not None
    assert image.alpha is not None
    assert np.abs(found.alpha.astype(int) - image.alpha).max() <= 3


@pytest.mark.parametrize("format", ["jpg", "bmp"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_alpha_is_laid_over_white_elsewhere_with_a_warning(format: str, dtype: Any):
    image = _smooth(3, alpha=True, dtype=dtype)
    with pytest.warns(RealesrWarning) as heard:
        found = read_image(encode_image(image, format))
    assert any("over white" in str(w.message) for w in heard)
    assert found.alpha is None
    assert image.alpha is not None
    cover = image.alpha[..., None] / np.iinfo(dtype).max
    expected = SMOOTH * cover + 255 * (1 - cover)
    assert np.abs(found.pixels - expected).max() <= (4 if format == "jpg" else 1)


def test_white_shines_through_exactly():
    color, cover = np.meshgrid(np.arange(256), np.arange(256))
    image = Image(color.astype(np.uint8)[..., None], cover.astype(np.uint8))
    with pytest.warns(RealesrWarning):
        found = read_image(encode_image(image, "bmp")).pixels[..., 0]
    expected = (color * cover + 255.0 * (255 - cover)) / 255
    assert np.array_equal(found, np.floor(expected + 0.5))
    floats = Image(np.full((1, 1, 1), 0.25, np.float32), np.full((1, 1), 0.5, np.float32))
    with pytest.warns(RealesrWarning):
        assert read_image(encode_image(floats, "bmp")).pixels[0, 0, 0] == 159  # 0.625


def test_exif_that_pillow_complains_of_is_written_to_avif():
    broken = bytearray(samples.exif_block(orientation=1))
    broken[10 + 8 : 10 + 12] = b"\xff\xff\0\0"  # the maker's name lies outside
    data = encode_image(Image(SMOOTH, exif=bytes(broken)), "avif")
    assert read_image(data).pixels.shape == SMOOTH.shape


@pytest.mark.parametrize("format", ["jpg", "webp", "avif", "bmp"])
def test_depth_that_a_format_cannot_hold_is_rounded_with_a_warning(format: str):
    image = _smooth(3, dtype=np.uint16)
    with pytest.warns(RealesrWarning, match="16 bits are rounded"):
        found = read_image(encode_image(image, format))
    assert found.bits == 8
    assert np.abs(found.pixels.astype(int) - SMOOTH).max() <= 6


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_rounding_to_eight_bits_is_to_the_nearest(dtype: Any):
    levels = np.arange(65536).astype(np.uint16).reshape(256, 256, 1)
    pixels = levels if dtype == np.uint16 else (levels / 65535).astype(np.float32)
    with pytest.warns(RealesrWarning):
        found = read_image(encode_image(Image(pixels), "bmp")).pixels
    assert np.array_equal(found, np.rint(levels / 257.0).astype(np.uint8))


def _rich(**changes: Any) -> Image:
    fields = {
        "pixels": SMOOTH,
        "icc": samples.ADOBE,
        "exif": samples.exif_block(orientation=1),
        "xmp": samples.XMP,
        "dpi": (300.0, 300.0),
    }
    return Image(**(fields | changes))


@pytest.mark.parametrize("format", CARRYING)
def test_metadata_survives_in_every_format_that_can_hold_it(format: str):
    image = _rich()
    found = read_image(encode_image(image, format))
    assert found.icc == samples.ADOBE
    assert found.exif is not None
    tags, expected = pillow.Exif(), pillow.Exif()
    tags.load(found.exif)
    assert image.exif is not None
    expected.load(image.exif)
    inner, wanted = tags.get_ifd(34665), dict(expected.get_ifd(34665))
    wanted |= {40962: 80, 40963: 60}
    assert dict(inner) == wanted
    assert tags.get_ifd(34853) == expected.get_ifd(34853)
    assert (tags[271], tags[305]) == (expected[271], expected[305])
    assert found.xmp is not None
    assert b'tiff:ImageWidth="80"' in found.xmp
    assert b"PixelYDimension>60<" in found.xmp
    if format in ("png", "jpg", "tiff"):
        assert found.dpi == pytest.approx((300, 300), abs=0.02)


# In AVIF the orientation is a property of the file: Pillow moves it there and writes EXIF anew.
@pytest.mark.parametrize("format", ["png", "jpg", "webp"])
def test_exif_survives_byte_for_byte_where_the_block_is_copied(format: str):
    block = samples.exif_block(orientation=1)
    pixels = SMOOTH[:30, :40]  # the size the block states
    found = read_image(encode_image(Image(pixels, exif=block), format))
    assert found.exif == block


@pytest.mark.parametrize("format", WRITABLE)
def test_stripped_files_carry_nothing(format: str):
    settings = WriteSettings(strip_metadata=True)
    found = read_image(encode_image(_rich(icc=samples.SRGB), format, settings))
    assert (found.icc, found.exif, found.xmp, found.dpi) == (None, None, None, None)
    if format == "png":
        assert np.array_equal(found.pixels, SMOOTH)


def test_stripping_a_wide_profile_keeps_the_look():
    pixels = np.full((4, 4, 3), (200, 120, 60), np.uint8)
    settings = WriteSettings(strip_metadata=True)
    found = read_image(encode_image(Image(pixels, icc=samples.ADOBE), "png", settings))
    # Adobe RGB (200, 120, 60) in sRGB, by the matrices of both standards: red grows.
    assert found.pixels[0, 0, 0] > 220
    assert abs(int(found.pixels[0, 0, 1]) - 119) <= 3
    wide = Image(pixels.astype(np.uint16) * 257, icc=samples.ADOBE)
    with pytest.warns(RealesrWarning, match="color profile is left out"):
        encode_image(wide, "png", settings)


@pytest.mark.parametrize("format", ["bmp", "jxl"])
def test_colors_become_srgb_where_a_format_stores_no_profile(format: str):
    if format == "jxl":
        pytest.importorskip("pillow_jxl")
    pixels = np.full((16, 16, 3), (200, 120, 60), np.uint8)
    found = read_image(encode_image(Image(pixels, icc=samples.ADOBE), format))
    assert found.icc is None
    # Adobe RGB (200, 120, 60) in sRGB, by the matrices of both standards: red grows.
    assert found.pixels[8, 8, 0] > 220
    same = read_image(encode_image(Image(pixels, icc=samples.SRGB), format))
    assert np.abs(same.pixels[8, 8].astype(int) - (200, 120, 60)).max() <= 2


def test_metadata_too_large_for_jpeg_is_left_out_with_a_warning():
    large = samples.exif_block(orientation=1) + bytes(70_000)
    with pytest.warns(RealesrWarning, match="EXIF block is too large"):
        found = read_image(encode_image(_rich(exif=large), "jpg"))
    assert found.exif is None
    assert found.icc == samples.ADOBE
    with pytest.warns(RealesrWarning, match="XMP packet is too large"):
        assert read_image(encode_image(_rich(xmp=bytes(66_000)), "jpg")).xmp is None


def test_quality_changes_size_and_chroma():
    image = Image(samples.noise(64, 64, 3))
    for format in ("jpg", "webp", "avif"):
        sizes = [len(encode_image(image, format, WriteSettings(quality=q))) for q in (20, 60, 95)]
        assert sizes == sorted(set(sizes))
    for quality, sampling in ((95, (1, 1)), (80, (2, 2))):
        data = encode_image(image, "jpg", WriteSettings(quality=quality))
        assert pillow.open(io.BytesIO(data)).layer[0][1:3] == sampling


def _decoded(data: bytes) -> np.ndarray:
    return np.asarray(pillow.open(io.BytesIO(data)))


@pytest.mark.parametrize("quality", [75, 95])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(16, 16), (100, 47), (129, 300), (257, 33)])
def test_bands_of_a_jpeg_are_those_of_the_whole(
    size: tuple[int, int], channels: int, quality: int, monkeypatch: pytest.MonkeyPatch
):
    image = _rich(pixels=samples.noise(*size, channels))
    settings = WriteSettings(quality=quality)
    whole = encode_image(image, "jpg", settings)
    for band in (1, 2000, 10**6):
        monkeypatch.setattr(writers, "_JPG_BAND_PIXELS", band)
        data = encode_image(image, "jpg", settings)
        assert np.array_equal(_decoded(data), _decoded(whole))
        opencv = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        expected = cv2.imdecode(np.frombuffer(whole, np.uint8), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(opencv, expected)
        found = read_image(data)
        assert (found.icc, found.exif, found.dpi) == (
            samples.ADOBE,
            read_image(whole).exif,
            (300, 300),
        )


@pytest.mark.parametrize("quality", [90, 95, 100])
def test_noise_fits_into_a_jpeg(quality: int):
    image = _rich(pixels=samples.noise(300, 300, 3))
    data = encode_image(image, "jpg", WriteSettings(quality=quality))
    assert read_image(data).width == 300


def test_lossless_webp_keeps_every_pixel_and_what_alpha_hides():
    array = samples.noise(20, 30, 4)
    array[:5, :, 3] = 0
    image = Image(np.ascontiguousarray(array[..., :3]), np.ascontiguousarray(array[..., 3]))
    found = read_image(encode_image(image, "webp", WriteSettings(lossless=True)))
    assert np.array_equal(np.asarray(found), array)


@pytest.mark.parametrize("format", ["webp", "jxl"])
def test_a_lossless_source_stays_lossless(format: str):
    if format == "jxl":
        pytest.importorskip("pillow_jxl")
    image = Image(samples.noise(20, 30, 3))
    lossless = read_image(encode_image(image, format, WriteSettings(lossless=True)))
    lossy = read_image(encode_image(image, format))
    again = read_image(encode_image(lossless, format))
    if format == "webp":  # A JPEG XL does not say which it is.
        assert np.array_equal(again.pixels, image.pixels)
        assert (lossless.lossless, lossy.lossless) == (True, False)
        smaller = encode_image(lossless, format, WriteSettings(quality=50))
        assert not np.array_equal(read_image(smaller).pixels, image.pixels)
        assert read_image(encode_image(lossless, "avif")).pixels.shape == (20, 30, 3)
    assert not np.array_equal(read_image(encode_image(lossy, format)).pixels, lossy.pixels)


def test_a_lossless_animation_stays_lossless():
    frames = [pillow.fromarray(samples.noise(9, 8, 3, seed=seed)) for seed in (1, 2)]
    data = samples.pillow_bytes(
        frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True
    )
    image = read_image(data)
    assert image.lossless
    assert np.array_equal(read_image(encode_image(image, "webp")).pixels, image.pixels)


@pytest.mark.parametrize("format", ["png", "tiff", "webp"])
def test_color_that_alpha_hides_is_kept_where_it_is_data(format: str):
    color = np.full((32, 32, 3), (200, 90, 30), np.uint8)
    image = Image(color, np.zeros((32, 32), np.uint8), hidden_color=True)
    found = read_image(encode_image(image, format))
    assert np.abs(found.pixels.astype(int) - color).max() <= 6


def test_color_that_alpha_hides_is_not_composited_where_it_is_data():
    color = np.full((32, 32, 3), (200, 90, 30), np.uint8)
    image = Image(color, np.zeros((32, 32), np.uint8), hidden_color=True)
    with pytest.warns(RealesrWarning, match="alpha is left out"):
        assert np.array_equal(read_image(encode_image(image, "bmp")).pixels, color)


# -- size of the file --------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["jpg", "webp", "avif", "jxl"])
def test_the_highest_quality_that_fits_is_used(format: str):
    if format == "jxl":
        pytest.importorskip("pillow_jxl")
    image = Image(samples.noise(64, 64, 3))
    sizes = {q: len(encode_image(image, format, WriteSettings(quality=q))) for q in range(1, 101)}
    limit = sizes[60]
    data = encode_image(image, format, WriteSettings(max_bytes=limit))
    assert len(data) <= limit
    default = len(encode_image(image, format))
    better = [size for q, size in sizes.items() if len(data) < size <= min(limit, default)]
    assert len(better) <= 1  # sizes do not rise at every step
    roomy = encode_image(image, format, WriteSettings(max_bytes=10**6))
    assert len(roomy) == default
    capped = encode_image(image, format, WriteSettings(quality=30, max_bytes=10**6))
    assert len(capped) == sizes[30]


@pytest.mark.parametrize(
    ("format", "settings"),
    [("jpg", {}), ("webp", {"lossless": True}), ("png", {}), ("tiff", {}), ("bmp", {})],
)
def test_a_file_that_cannot_be_small_enough_is_an_error(
    tmp_path: Path, format: str, settings: dict[str, Any]
):
    image = Image(samples.noise(64, 64, 3))
    path = tmp_path / f"a.{format}"
    with pytest.raises(ImageWriteError, match="max_bytes = 500"):
        write_image(image, path, WriteSettings(max_bytes=500, **settings))
    assert list(tmp_path.iterdir()) == []
    write_image(image, path, WriteSettings(max_bytes=100_000, **settings))
    assert path.stat().st_size <= 100_000


# -- what made a file --------------------------------------------------------------------------

RECORD = '{"model": "photo", "note": "a < b & \\"c\\"", "scale": 4}'


@pytest.mark.parametrize("format", [*CARRYING, "jxl"])
@pytest.mark.parametrize("packet", [samples.XMP, None, samples.XMP + b" " * 2000])
def test_the_record_of_what_made_a_file_is_found(tmp_path: Path, format: str, packet: Any):
    if format == "jxl":
        pytest.importorskip("pillow_jxl")
    path = tmp_path / f"a.{format}"
    image = _rich(xmp=packet, made_by=RECORD)
    write_image(image, path)
    assert read_made_by(path) == RECORD
    assert read_made_by(path.read_bytes()) == RECORD
    found = read_image(path)
    assert found.made_by is None  # It is not true of what is made of this image.
    assert found.xmp is not None
    if packet is not None:
        assert b'tiff:ImageWidth="80"' in found.xmp
    assert found.exif is not None
    ElementTree.fromstring(found.xmp.strip())
    write_image(found, path)
    assert read_made_by(path) is None
    again = read_image(path)
    plain = read_image(encode_image(_rich(xmp=packet), format))
    assert (again.xmp, again.icc, again.dpi) == (plain.xmp, plain.icc, plain.dpi)
    write_image(dataclasses.replace(found, made_by="another"), path)
    assert read_made_by(path) == "another"
    write_image(image, path, WriteSettings(strip_metadata=True))
    assert read_made_by(path) is None


def test_a_record_behind_a_large_image_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(probe_module, "_MARK_BYTES", 2**13)
    image = Image(samples.noise(120, 120, 3), made_by=RECORD)
    for format in CARRYING:
        level = 0 if format in ("png", "tiff") else None
        write_image(image, tmp_path / f"a.{format}", WriteSettings(compress_level=level))
        assert read_made_by(tmp_path / f"a.{format}") == RECORD


def test_files_without_a_record_have_none(tmp_path: Path):
    assert read_made_by(tmp_path / "missing.png") is None
    assert read_made_by(tmp_path) is None
    (tmp_path / "text.png").write_text("no image")
    assert read_made_by(tmp_path / "text.png") is None
    _rich(made_by=RECORD).save(tmp_path / "a.bmp")
    assert read_made_by(tmp_path / "a.bmp") is None


def test_a_packet_that_has_no_place_for_a_record_stays_as_it_is():
    packet = samples.XMP.decode().encode("utf-16")
    image = _rich(xmp=packet, made_by=RECORD)
    assert read_image(encode_image(image, "png")).xmp == packet


def test_a_record_goes_before_the_users_packet_does():
    packet = samples.XMP.replace(b"</rdf:RDF", b" " * 65_100 + b"</rdf:RDF")
    found = read_image(encode_image(_rich(xmp=packet, made_by=RECORD), "jpg"))
    assert found.xmp is not None
    assert len(found.xmp) == len(packet)


@pytest.mark.parametrize(
    "changes",
    [
        {"quality": 0},
        {"quality": 101},
        {"compress_level": 10},
        {"format": "gif"},
        {"format": "jpg", "lossless": True},
        {"format": "avif", "lossless": True},
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any]):
    with pytest.raises(ConfigError):
        WriteSettings(**changes)


def test_lossless_jpeg_is_refused_where_the_name_states_the_format(tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot be lossless"):
        write_image(_smooth(), tmp_path / "a.jpg", WriteSettings(lossless=True))
    assert list(tmp_path.iterdir()) == []


def test_settings_without_effect_are_reported():
    with pytest.warns(RealesrWarning, match="quality has no effect on png"):
        encode_image(_smooth(), "png", WriteSettings(quality=80))
    with pytest.warns(RealesrWarning, match="compress_level has no effect on jpg"):
        encode_image(_smooth(), "jpg", WriteSettings(compress_level=3))


def test_a_missing_encoder_names_the_way_out(monkeypatch: pytest.MonkeyPatch):
    pillow.init()
    monkeypatch.delitem(pillow.SAVE, "AVIF")
    with pytest.raises(MissingDependencyError, match="cannot write avif"):
        encode_image(_smooth(), "avif")


def test_an_encoder_that_refuses_is_a_write_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("encoder error -2")

    monkeypatch.setattr(pillow.Image, "save", refuse)
    with pytest.raises(ImageWriteError, match=r"a\.jpg: the jpg encoder fails"):
        write_image(_smooth(), tmp_path / "a.jpg")
    assert list(tmp_path.iterdir()) == []


# -- to Pillow ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "alpha", "mode"),
    [(1, False, "L"), (1, True, "LA"), (3, False, "RGB"), (3, True, "RGBA")],
)
def test_pillow_gets_the_pixels(channels: int, alpha: bool, mode: str):
    image = _smooth(channels, alpha)
    img = image.to_pil()
    assert img.mode == mode
    assert np.array_equal(np.asarray(img), np.asarray(image))


def test_pillow_gets_the_metadata():
    img = _rich().to_pil()
    assert img.info["icc_profile"] == samples.ADOBE
    assert img.getexif()[271] == "A maker of cameras"
    assert img.info["dpi"] == (300, 300)
    buffer = io.BytesIO()
    img.save(buffer, "JPEG", exif=img.info["exif"])
    assert read_image(buffer.getvalue()).exif is not None


def test_pillow_gets_deep_gray_and_rounded_color():
    gray = _smooth(1, dtype=np.uint16)
    assert gray.to_pil().mode == "I;16"
    assert np.array_equal(np.asarray(gray.to_pil()), gray.pixels[..., 0])
    assert Image(samples.noise(4, 4, 1, np.float32)).to_pil().mode == "F"
    with pytest.warns(RealesrWarning, match="rounded to 8 bits"):
        img = _smooth(3, alpha=True, dtype=np.uint16).to_pil()
    assert np.array_equal(np.asarray(img)[..., :3], SMOOTH)


# -- atomic writes -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["früh.png", "写真.jpg", "🌲.webp", "x" * 250 + ".bmp", "a.TIFF"])
def test_files_of_any_name_land(tmp_path: Path, name: str):
    _smooth().save(tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert read_image(tmp_path / name).width == 80


def test_the_format_asked_for_wins_over_the_name(tmp_path: Path):
    _smooth().save(tmp_path / "image.bin", WriteSettings(format="jpeg"))
    assert read_image(tmp_path / "image.bin").format == "JPEG"


@pytest.mark.parametrize("name", ["a.gif", "a", "a.txt"])
def test_unknown_formats_are_refused_with_the_known_ones(tmp_path: Path, name: str):
    with pytest.raises(UnsupportedImageError, match=r"\.png"):
        _smooth().save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_sizes_beyond_a_format_are_refused_before_any_work(tmp_path: Path):
    wide = Image(np.zeros((1, 16_384, 1), np.uint8))
    with pytest.raises(ImageTooLargeError, match="16,383"):
        wide.save(tmp_path / "a.webp")
    assert list(tmp_path.iterdir()) == []


class _Full(io.BytesIO):
    """A file on a disk that is full after some bytes."""

    def __init__(self, real: Any) -> None:
        super().__init__()
        self.real = real
        self.left = 50

    def write(self, data: Any) -> int:
        self.left -= len(data)
        if self.left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.real.write(data)

    def fileno(self) -> int:
        return self.real.fileno()

    def close(self) -> None:
        self.real.close()


@pytest.mark.parametrize("format", WRITABLE)
def test_a_full_disk_is_reported_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
):
    path = tmp_path / f"a.{format}"
    path.write_bytes(b"old")
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda self, mode: _Full(opened(self, mode)))
    with pytest.raises(ImageWriteError, match="No space left on device; free some space"):
        _smooth().save(path)
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [path.name]


def test_a_disk_that_fails_at_the_end_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    (tmp_path / "a.png").write_bytes(b"old")
    monkeypatch.setattr(atomic.os, "fsync", fail)
    with pytest.raises(ImageWriteError, match=r"a\.png: cannot be written: Input/output error"):
        _smooth().save(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, MemoryError, SystemExit])
def test_an_interruption_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interruption: type[BaseException]
):
    def interrupt(file: Any, *_: Any) -> None:
        file.write(b"begun")
        assert [p.suffix for p in tmp_path.iterdir()] == [".part"]
        raise interruption

    monkeypatch.setattr(writers, "write_png", interrupt)
    with pytest.raises(interruption):
        _smooth().save(tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_folders_that_cannot_be_written_to_are_reported(tmp_path: Path):
    with pytest.raises(ImageWriteError, match="create the folder first"):
        _smooth().save(tmp_path / "no" / "such" / "a.png")
    (tmp_path / "file").touch()
    with pytest.raises(ImageWriteError, match="Not a directory"):
        _smooth().save(tmp_path / "file" / "a.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ImageWriteError, match="name a file in it"):
        _smooth().save(tmp_path / "folder.png")


def test_a_refused_permission_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ImageWriteError, match="Permission denied; choose another folder"):
        _smooth().save(tmp_path / "a.png")


def test_devices_are_not_replaced():
    with pytest.raises(ImageWriteError, match="special file"):
        write_image(_smooth(), os.devnull, WriteSettings(format="png"))
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_a_link_stays_a_link(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "real" / "a.png")
    _smooth().save(tmp_path / "link.png")
    assert (tmp_path / "link.png").is_symlink()
    assert read_image(tmp_path / "real" / "a.png").width == 80


def test_permissions_are_those_of_any_new_file(tmp_path: Path):
    (tmp_path / "plain").touch()
    _smooth().save(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "plain").stat().st_mode
