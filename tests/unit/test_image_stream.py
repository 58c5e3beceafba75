"""Images that come and go in bands: PNG, TIFF and JPEG written so, PNG and TIFF read so."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import image_samples as samples
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as pillow

from realesr_cli.errors import ImageTooLargeError, UnreadableImageError
from realesr_cli.image import deflate, rows, tiff, writers
from realesr_cli.image.read import read_image
from realesr_cli.image.rows import open_rows
from realesr_cli.image.types import Band, Image, ImageStream, RowWindow
from realesr_cli.image.write import WriteSettings, encode_image, write_image


def in_bands(image: Image, *heights: int) -> ImageStream:
    """The image as a stream of bands of these heights, over and over."""

    def bands() -> Iterator[Band]:
        start = 0
        for height in itertools.cycle(heights):
            stop = min(start + height, image.height)
            yield image.pixels[start:stop], None if image.alpha is None else image.alpha[start:stop]
            start = stop
            if start == image.height:
                return

    whole = ImageStream.of(image)
    return ImageStream(
        whole.height, whole.width, whole.channels, whole.dtype, whole.has_alpha, bands, whole.about
    )


def make(dtype: Any, channels: int, alpha: bool, size: tuple[int, int] = (61, 47)) -> Image:
    pixels = samples.noise(*size, channels, dtype)
    pixels[20:40] = pixels[20]  # rows that other filters suit
    pixels[:, 10:20] = pixels[:, 10:11]
    cover = samples.noise(*size, 1, dtype, seed=1)[..., 0] if alpha else None
    return Image(pixels, cover, dpi=(300, 300))


def parse_png(data: bytes) -> bytes:
    """Check every length and checksum of a PNG, and return its pixels as they are filtered."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    position, stream, kinds = 8, b"", []
    while position < len(data):
        (size,) = struct.unpack_from(">I", data, position)
        kind, content = data[position + 4 : position + 8], data[position + 8 : position + 8 + size]
        assert struct.unpack_from(">I", data, position + 8 + size)[0] == zlib.crc32(kind + content)
        stream += content if kind == b"IDAT" else b""
        kinds.append(kind)
        position += 12 + size
    assert position == len(data)
    assert kinds[-1] == b"IEND"
    inflate = zlib.decompressobj()
    found = inflate.decompress(stream)
    assert inflate.eof  # which verifies the combined Adler-32
    assert not inflate.unused_data
    return found


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("format", ["png", "tiff"])
def test_bands_of_any_height_make_the_same_file(
    format: str, dtype: Any, channels: int, alpha: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(deflate, "BLOCK_BYTES", 3000)
    image = make(dtype, channels, alpha)
    expected = encode_image(image, format)
    for heights in ((1,), (7, 23), (61,), (60, 1)):
        assert encode_image(in_bands(image, *heights), format) == expected
    found = read_image(expected)
    assert np.array_equal(np.asarray(found), np.asarray(image))
    if format == "png":
        raw = parse_png(expected)
        samples_per_row = 47 * (channels + alpha) * np.dtype(dtype).itemsize
        assert len(raw) == 61 * (1 + samples_per_row)
    if not (dtype == np.uint16 and channels == 1 and alpha):  # OpenCV has no such kind.
        decoded = cv2.imdecode(np.frombuffer(expected, np.uint8), cv2.IMREAD_UNCHANGED)
        assert decoded is not None


@pytest.mark.parametrize("quality", [75, 95])
def test_a_jpeg_in_bands_has_the_pixels_of_the_whole(quality: int, monkeypatch: pytest.MonkeyPatch):
    image = make(np.uint8, 3, True, (150, 90))
    settings = WriteSettings(quality=quality)
    with pytest.warns(match="alpha"):
        whole = encode_image(image, "jpg", settings)
    monkeypatch.setattr(writers, "_JPG_BAND_PIXELS", 3000)
    with pytest.warns(match="alpha"):
        data = encode_image(in_bands(image, 13), "jpg", settings)
    first, second = (np.asarray(pillow.open(io.BytesIO(one))) for one in (whole, data))
    assert np.array_equal(first, second)


def test_depth_and_profile_are_reduced_by_bands():
    image = Image(samples.noise(40, 30, 3), icc=samples.ADOBE, dpi=(72, 72))
    for format, settings in (
        ("png", WriteSettings(strip_metadata=True)),
        ("jpg", WriteSettings(strip_metadata=True, quality=100)),
        ("webp", WriteSettings(lossless=True)),
    ):
        whole = encode_image(image, format, settings)
        assert encode_image(in_bands(image, 7), format, settings) == whole
    deep = make(np.uint16, 3, False)
    with pytest.warns(match="16 bits"):
        whole = encode_image(deep, "jpg")
    with pytest.warns(match="16 bits"):
        assert encode_image(in_bands(deep, 9), "jpg") == whole


def test_a_limit_of_bytes_collects_the_bands():
    image = make(np.uint8, 3, False)
    settings = WriteSettings(max_bytes=6000)
    assert encode_image(in_bands(image, 5), "jpg", settings) == encode_image(image, "jpg", settings)


@given(st.binary(max_size=3000), st.binary(max_size=3000))
def test_checksums_are_joined(first: bytes, second: bytes):
    joined = deflate.join_adler32(zlib.adler32(first), zlib.adler32(second), len(second))
    assert joined == zlib.adler32(first + second)


def smooth(size: int) -> Any:
    """A photo: gradients, noise, an edge."""
    ys, xs = np.mgrid[:size, :size].astype(np.float32)
    rng = np.random.default_rng(0)
    base = 120 + 60 * np.sin(xs / 37) * np.cos(ys / 53) + 50 * (xs + ys > size)
    noise = rng.normal(0, 3, (size // 4, size // 4, 3)).repeat(4, 0).repeat(4, 1)
    return np.clip(base[..., None] + noise + rng.normal(0, 1, (size, size, 3)), 0, 255)


def flat(size: int) -> Any:
    """A drawing: few colors, and a pattern that repeats."""
    pixels = np.full((size, size, 3), 255, np.uint8)
    pixels[:, ::16] = 0
    pixels[size // 3 : size // 2, size // 4 :] = (200, 30, 30)
    tile = np.random.default_rng(0).integers(0, 256, (16, 16, 3))
    pixels[size // 2 :] = np.tile(tile, (size // 32, size // 16, 1))
    return pixels


@pytest.mark.parametrize("content", [smooth, flat])
@pytest.mark.parametrize("format", ["png", "tiff"])
def test_files_are_as_small_as_by_one_search_for_repetitions(format: str, content: Any):
    image = Image(content(512).astype(np.uint8))
    data = encode_image(image, format)
    if format == "png":
        expected = len(zlib.compress(parse_png(data), 6))
    else:
        differences = image.pixels.copy()
        differences[:, 1:] -= image.pixels[:, :-1]
        step = 2**18 // (512 * 4)
        strips = (differences[i : i + step].tobytes() for i in range(0, 512, step))
        expected = sum(len(zlib.compress(strip, 6)) for strip in strips)
    assert len(data) <= 1.03 * expected + 1500


def test_without_zlib_ng_files_are_written_too(monkeypatch: pytest.MonkeyPatch):
    image = make(np.uint8, 3, False)
    monkeypatch.setattr(deflate, "_library", lambda: zlib)
    assert np.array_equal(read_image(encode_image(image, "png")).pixels, image.pixels)


# -- BigTIFF -----------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0, 6])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_bigtiff_holds_what_a_tiff_holds(
    dtype: Any, alpha: bool, level: int, monkeypatch: pytest.MonkeyPatch
):
    image = make(dtype, 3, alpha)
    settings = WriteSettings(compress_level=level)
    classic = read_image(encode_image(image, "tiff", settings))
    exif = classic.exif
    image = Image(image.pixels, image.alpha, exif=exif, icc=samples.ADOBE, dpi=(300, 300))
    classic = read_image(encode_image(image, "tiff", settings))
    monkeypatch.setattr(writers, "CLASSIC_TIFF_BYTES", 0)
    data = encode_image(in_bands(image, 9), "tiff", settings)
    assert data[:4] == b"II+\0"
    found = read_image(data)
    assert np.array_equal(np.asarray(found), np.asarray(image))
    assert (found.exif, found.icc, found.dpi) == (classic.exif, classic.icc, classic.dpi)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        assert file.is_bigtiff
        if not (dtype == np.float32 and level):
            assert np.array_equal(file.asarray(), np.asarray(image))
    if dtype == np.uint8:
        assert np.array_equal(np.asarray(pillow.open(io.BytesIO(data))), np.asarray(image))


@pytest.mark.parametrize("big", [False, True])
def test_inner_directories_survive(big: bool, monkeypatch: pytest.MonkeyPatch):
    tags = pillow.Exif()
    tags[0x010F] = "maker"
    tags.get_ifd(0x8769)[0x829A] = 0.5
    tags.get_ifd(0x8825)[1] = "N"
    exif = tags.tobytes()[6:]
    monkeypatch.setattr(writers, "CLASSIC_TIFF_BYTES", 0 if big else 2**32)
    data = encode_image(Image(samples.noise(5, 4, 3), exif=exif), "tiff")
    found = pillow.Exif()
    found.load(b"Exif\0\0" + (read_image(data).exif or b""))
    assert found[0x010F] == "maker"
    assert float(found.get_ifd(0x8769)[0x829A]) == 0.5
    assert found.get_ifd(0x8825)[1] == "N"
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        assert "ExposureTime" in file.pages[0].tags[34665].value


@pytest.mark.slow
def test_a_file_beyond_4_gib_is_a_bigtiff(tmp_path: Path):
    side, step = 66_000, 600
    row = np.arange(side, dtype=np.uint32)

    def bands() -> Iterator[Band]:
        for start in range(0, side, step):
            ys = np.arange(start, start + step, dtype=np.uint32)[:, None]
            yield ((row // 256 + ys // 128) % 256).astype(np.uint8)[..., None], None

    stream = ImageStream(side, side, 1, np.dtype(np.uint8), False, bands)
    path = tmp_path / "big.tif"
    write_image(stream, path, WriteSettings(compress_level=0))
    assert path.stat().st_size > 2**32
    rng = np.random.default_rng(0)
    with tifffile.TiffFile(path) as file:
        found = file.pages[0].asarray(out="memmap")
        for _ in range(200):
            y, x = rng.integers(0, side - 64, 2)
            expected = (np.arange(x, x + 64) // 256 + np.arange(y, y + 64)[:, None] // 128) % 256
            assert np.array_equal(found[y : y + 64, x : x + 64], expected)
    again = open_rows(path)
    assert again is not None
    assert next(again.bands())[0].shape[1:] == (side, 1)


# -- Reading by rows ---------------------------------------------------------------------------


def write_kinds(folder: Path, array: Any) -> Iterator[Path]:
    plain = array if array.shape[2] == 3 else array[..., 0]
    rgb = "rgb" if array.shape[2] == 3 else "minisblack"
    image = Image(array, dpi=(72, 72), icc=samples.ADOBE if array.shape[2] == 3 else None)
    for name in ("ours.png", "ours.tif"):
        write_image(image, folder / name)
        yield folder / name
    kinds: dict[str, dict[str, Any]] = {
        "strip.tif": {},
        "tiles.tif": {"tile": (16, 32), "compression": "zlib", "predictor": True, "byteorder": ">"},
        "big.tif": {"rowsperstrip": 7, "bigtiff": True},
    }
    for name, options in kinds.items():
        tifffile.imwrite(folder / name, plain, photometric=rgb, **options)
        yield folder / name


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_rows_are_those_of_the_whole_file(
    tmp_path: Path, dtype: Any, channels: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(rows, "_BAND_BYTES", 2000)
    monkeypatch.setattr(tiff, "_BAND_BYTES", 2000)
    monkeypatch.setattr(rows, "_READ_BYTES", 333)
    array = make(dtype, channels, False).pixels
    for path in write_kinds(tmp_path, array):
        stream, whole = open_rows(path), read_image(path)
        assert stream is not None
        found = stream.collect()
        assert found.pixels.dtype == dtype
        assert np.array_equal(found.pixels, array)
        for name in ("icc", "exif", "xmp", "dpi", "format", "notes", "text"):
            assert getattr(found, name) == getattr(whole, name), (path.name, name)
    assert len(list(open_rows(tmp_path / "ours.png").bands())) > 1
    assert len(list(open_rows(tmp_path / "strip.tif").bands())) > 1


def test_what_needs_the_whole_image_is_not_read_by_rows(tmp_path: Path):
    rgb = pillow.fromarray(samples.noise(20, 30, 3))
    upside = pillow.Exif()
    upside[274] = 3
    files: dict[str, tuple[pillow.Image, dict[str, Any]]] = {
        "alpha.png": (rgb.convert("RGBA"), {}),
        "palette.png": (rgb.quantize(), {}),
        "turned.png": (rgb, {"exif": upside}),
        "turned.tif": (rgb, {"exif": upside}),
        "alpha.tif": (rgb.convert("RGBA"), {}),
        "cmyk.tif": (rgb.convert("CMYK"), {}),
        "photo.jpg": (rgb, {}),
    }
    for name, (image, options) in files.items():
        image.save(tmp_path / name, **options)
        assert open_rows(tmp_path / name) is None, name
    (tmp_path / "text.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    assert open_rows(tmp_path / "text.png") is None


def test_damage_shows_on_the_way(tmp_path: Path):
    path = tmp_path / "a.png"
    write_image(Image(samples.noise(40, 50, 3)), path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    stream = open_rows(path)
    assert stream is not None
    with pytest.raises(UnreadableImageError, match=r"a\.png"):
        stream.collect()
    with pytest.raises(ImageTooLargeError, match="2,000"):
        open_rows(path, max_pixels=1000)


def test_a_window_holds_only_the_rows_in_use():
    image = make(np.uint8, 3, False)
    window = RowWindow(in_bands(image, 5), lag=4)
    most = 0
    for low in range(0, 50, 3):
        assert np.array_equal(window[low : low + 11], image.pixels[low : low + 11])
        before = max(0, low - 4)
        assert np.array_equal(window[before : low + 1], image.pixels[before : low + 1])
        most = max(most, sum(map(len, window._held)))
    assert most <= 25
    with pytest.raises(ValueError, match="row 0"):
        window[0:3]
