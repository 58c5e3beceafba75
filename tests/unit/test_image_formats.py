"""Names, extensions and limits of formats, and the record of an image."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import image_samples as samples
import numpy as np
import pytest

from realesr_cli.errors import ImageTooLargeError, UnsupportedImageError
from realesr_cli.image.formats import (
    WRITABLE,
    WriteSettings,
    canonical,
    check_size,
    default_extension,
    extension_of,
    format_of,
    is_image,
)
from realesr_cli.image.types import Image
from realesr_cli.settings import from_plain, to_plain


@pytest.mark.parametrize("format", WRITABLE)
def test_extensions_and_names_go_both_ways(format: str):
    assert format_of(Path("a" + extension_of(format))) == format
    assert format_of(Path("a" + extension_of(format).upper())) == format
    assert canonical(format.upper()) == format


def test_other_spellings_are_known():
    assert canonical("JPEG") == "jpg"
    assert canonical(".tif") == "tiff"
    for name, format in (("a.jfif", "jpg"), ("b.c.jpeg", "jpg"), ("a.tiff", "tiff")):
        assert format_of(name) == format
    assert format_of("a.png", WriteSettings(format="tif")) == "tiff"


def test_unknown_formats_are_refused_with_the_nearest():
    with pytest.raises(UnsupportedImageError, match="did you mean 'webp'"):
        canonical("webpp")
    with pytest.raises(UnsupportedImageError, match="extension ''"):
        format_of("image")


@pytest.mark.parametrize(
    ("format", "height", "width"),
    [
        ("jpg", 65_535, 65_535),
        ("webp", 16_383, 16_383),
        ("avif", 16_384, 16_384),
        ("avif", 8_000, 32_768),
        ("png", 200_000, 200_000),
        ("tiff", 30_000, 30_000),
        ("bmp", 30_000, 30_000),
    ],
)
def test_the_largest_sizes_pass(format: str, height: int, width: int):
    check_size(format, height, width)


@pytest.mark.parametrize(
    ("format", "height", "width", "reason"),
    [
        ("jpg", 10, 65_536, "65,535"),
        ("jpeg", 65_536, 10, "65,535"),
        ("webp", 16_384, 1, "16,383"),
        ("avif", 1, 32_769, "32,768"),
        ("avif", 16_384, 16_385, "268,435,456"),
        ("png", 2**31, 1, "2,147,483,647"),
        ("bmp", 33_000, 33_000, "4 GiB"),
    ],
)
def test_sizes_beyond_are_refused(format: str, height: int, width: int, reason: str):
    with pytest.raises(ImageTooLargeError, match=reason):
        check_size(format, height, width)


def test_depth_counts_where_bytes_do():
    check_size("bmp", 30_000, 30_000, bytes_per_pixel=3)
    with pytest.raises(ImageTooLargeError, match="4 GiB"):
        check_size("bmp", 30_000, 30_000, bytes_per_pixel=8)


def test_a_refusal_names_a_format_that_is_large_enough():
    for format, side in (("jpg", 65_536), ("webp", 70_000), ("avif", 2**20)):
        with pytest.raises(ImageTooLargeError, match="write png or tiff, or"):
            check_size(format, 10, side)
    with pytest.raises(ImageTooLargeError, match="write png or jpg or tiff"):
        check_size("webp", 10, 16_384)


def test_avif_stops_where_readers_do():
    # The encoder would make this file; our reader and others then refuse it.
    with pytest.raises(ImageTooLargeError):
        check_size("avif", 16, 40_000)


@pytest.mark.parametrize(
    "name",
    [
        "a.png",
        "A.JPG",
        "b.jpeg",
        "c.jfif",
        "d.webp",
        "e.tif",
        "f.TIFF",
        "g.avif",
        "h.bmp",
        "i.gif",
        "j.ppm",
        "früh.png",
        "x/m.jp2",
        "n.heic",
        "o.jxl",
        "p.NEF",
        "q.exr",
        "r.hdr",
        "s.psb",
    ],
)
def test_images_are_known_by_their_extension(name: str):
    assert is_image(Path(name))
    assert is_image(name)


@pytest.mark.parametrize(
    "name", ["a.txt", "png", "b.png.part", ".hidden.png", "c.pth", "d.mp4", "e.eps", "f"]
)
def test_other_files_are_not(name: str):
    assert not is_image(Path(name))


def _image(format: str | None, *, deep: bool = False, alpha: bool = False) -> Image:
    pixels = samples.noise(2, 2, 3, np.uint16 if deep else np.uint8)
    return Image(pixels, pixels[..., 0].copy() if alpha else None, format=format)


@pytest.mark.parametrize(
    ("format", "deep", "alpha", "extension"),
    [
        ("JPEG", False, False, ".jpg"),
        ("MPO", False, False, ".jpg"),
        ("PNG", True, True, ".png"),
        ("WEBP", False, True, ".webp"),
        ("AVIF", False, True, ".avif"),
        ("TIFF", True, True, ".tif"),
        ("BMP", False, False, ".bmp"),
        ("GIF", False, False, ".png"),
        (None, False, False, ".png"),
        ("JPEG2000", True, False, ".png"),
        ("JPEG", False, True, ".png"),
        ("BMP", False, True, ".png"),
        ("WEBP", True, False, ".png"),
    ],
)
def test_results_are_of_the_kind_of_their_source(
    format: str | None, deep: bool, alpha: bool, extension: str
):
    assert default_extension(_image(format, deep=deep, alpha=alpha)) == extension


def test_settings_are_plain_data():
    settings = WriteSettings(format="webp", quality=80, lossless=True)
    assert from_plain(WriteSettings, to_plain(settings)) == settings


# -- the record --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pixels", "alpha"),
    [
        (np.zeros((4, 4), np.uint8), None),
        (np.zeros((4, 4, 2), np.uint8), None),
        (np.zeros((4, 4, 4), np.uint8), None),
        (np.zeros((0, 4, 3), np.uint8), None),
        (np.zeros((4, 4, 3), np.float64), None),
        (np.zeros((4, 4, 3), np.int16), None),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), np.uint8)),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint16)),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 1), np.uint8)),
    ],
)
def test_records_hold_images_only(pixels: np.ndarray, alpha: np.ndarray | None):
    with pytest.raises(UnsupportedImageError, match="shape"):
        Image(pixels, alpha)


def test_a_record_knows_its_shape():
    image = Image(np.zeros((4, 6, 1), np.uint16), np.zeros((4, 6), np.uint16))
    assert (image.height, image.width, image.channels, image.bits) == (4, 6, 1, 16)
    assert image.gray
    assert image.has_alpha
    assert Image(np.zeros((1, 1, 3), np.float32)).bits == 32
    assert np.asarray(image).shape == (4, 6, 2)
    assert np.asarray(Image(np.zeros((4, 6, 1), np.uint8)), dtype=np.float32).shape == (4, 6)
    assert np.asarray(Image(np.zeros((4, 6, 3), np.uint8))).shape == (4, 6, 3)


def test_other_pixels_keep_what_belongs_to_the_image():
    image = Image(samples.noise(2, 2, 3), icc=b"icc", exif=b"exif", xmp=b"xmp", dpi=(72, 72))
    image = dataclasses.replace(image, format="PNG", notes=("a note",))
    other = image.with_pixels(samples.noise(4, 4, 3), None)
    assert other.height == 4
    for field in ("icc", "exif", "xmp", "dpi", "format", "notes"):
        assert getattr(other, field) == getattr(image, field)


def test_records_are_equal_only_to_themselves():
    image = _image("PNG")
    assert image == image
    assert image != dataclasses.replace(image)
    assert len({image, image, dataclasses.replace(image)}) == 2
