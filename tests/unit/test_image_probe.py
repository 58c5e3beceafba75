"""Headers agree with what reading gives, and only whole files count as whole."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import image_samples as samples
import numpy as np
import pytest
from PIL import Image as pillow

from realesr_cli.errors import (
    ImageError,
    ImageTooLargeError,
    MissingDependencyError,
    UnreadableImageError,
)
from realesr_cli.image import probe as probing
from realesr_cli.image.probe import probe, whole_size
from realesr_cli.image.read import read_image


def _encoded(mode: str, kind: str, **options: object) -> bytes:
    rng = np.random.default_rng(3)
    channels = {"L": 1, "LA": 2, "P": 1, "RGB": 3, "RGBA": 4, "CMYK": 4, "1": 1}[mode]
    array = rng.integers(0, 256, (6, 9, channels), dtype=np.uint8)
    base = {"P": "L", "1": "L"}.get(mode, mode)
    image = pillow.frombytes(base, (9, 6), array.tobytes())
    if mode in ("P", "1"):
        image = image.convert(mode)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found = probing.png.find_chunks(io.BytesIO(data))
    return [(chunk.kind, data[chunk.start : chunk.start + chunk.length]) for chunk in found]


def _orientation(value: int) -> pillow.Exif:
    exif = pillow.Exif()
    exif[274] = value
    return exif


def _deep(channels: int, extension: str) -> bytes:
    array = np.arange(6 * 9 * channels, dtype=np.uint16).reshape(6, 9, channels) * 100
    return cv2.imencode(extension, array)[1].tobytes()


CASES = {
    "png gray": _encoded("L", "PNG"),
    "png gray alpha": _encoded("LA", "PNG"),
    "png color": _encoded("RGB", "PNG"),
    "png alpha": _encoded("RGBA", "PNG"),
    "png bilevel": _encoded("1", "PNG"),
    "png key": _encoded("RGB", "PNG", transparency=(1, 2, 3)),
    "png turned": _encoded("RGB", "PNG", exif=_orientation(6)),
    "png 16 color": _deep(3, ".png"),
    "png 16 alpha": _deep(4, ".png"),
    "png 16 gray": _deep(1, ".png"),
    "jpeg": _encoded("RGB", "JPEG"),
    "jpeg gray": _encoded("L", "JPEG"),
    "jpeg inks": _encoded("CMYK", "JPEG"),
    "jpeg turned": _encoded("RGB", "JPEG", exif=_orientation(8)),
    "webp": _encoded("RGB", "WEBP"),
    "webp alpha": _encoded("RGBA", "WEBP"),
    "webp turned": _encoded("RGB", "WEBP", exif=_orientation(5)),
    "bmp": _encoded("RGB", "BMP"),
    "tga": _encoded("RGBA", "TGA"),
    "tiff": _encoded("RGB", "TIFF"),
    "tiff turned": _encoded("RGB", "TIFF", exif=_orientation(6)),
    "tiff alpha": _encoded("RGBA", "TIFF"),
    "tiff inks": _encoded("CMYK", "TIFF"),
    "tiff 16": _deep(3, ".tiff"),
    "tiff 16 gray": _deep(1, ".tiff"),
    "ppm 16": b"P6 9 6 65535\n" + bytes(6 * 9 * 3 * 2),
    "pgm": _encoded("L", "PPM"),
    "avif": _encoded("RGB", "AVIF"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_header_says_what_reading_gives(name: str, monkeypatch: pytest.MonkeyPatch):
    image = read_image(CASES[name])
    monkeypatch.setattr(probing, "read_image", None)  # the header alone must do
    found = probe(CASES[name])
    assert (found.height, found.width) == (image.height, image.width)
    assert (found.channels, found.bits) == (image.channels, image.bits)
    assert (found.has_alpha, found.format) == (image.has_alpha, image.format)


def test_a_palette_counts_as_color():
    found = probe(_encoded("P", "GIF"))
    assert (found.channels, found.bits, found.format) == (3, 8, "GIF")


def test_an_orientation_behind_the_pixels_is_found():
    data = CASES["png turned"]
    chunks = _chunks(data)
    late = sorted(chunks, key=lambda c: (c[0] == b"IEND", c[0] == b"eXIf", c[0] == b"IDAT"))
    late.sort(key=lambda c: c[0] != b"IHDR")
    moved = probing.png.SIGNATURE + b"".join(samples.png_chunk(*c) for c in late)
    assert [kind for kind, _ in late][-2:] == [b"eXIf", b"IEND"]
    image = read_image(moved)
    assert (probe(moved).height, probe(moved).width) == (image.height, image.width) == (9, 6)


@pytest.mark.parametrize(
    "data",
    [b"", b"not an image", CASES["png color"][:40], CASES["tiff"][:20], b"%PDF-1.7"],
    ids=["empty", "text", "png", "tiff", "pdf"],
)
def test_what_is_no_image_is_refused_in_the_readers_words(data: bytes):
    with pytest.raises(ImageError) as expected:
        read_image(data)
    with pytest.raises(type(expected.value)) as found:
        probe(data)
    assert str(found.value) == str(expected.value)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(UnreadableImageError, match=r"gone\.png"):
        probe(tmp_path / "gone.png")


@pytest.mark.parametrize("name", ["png color", "png 16 color", "jpeg", "webp", "tiff", "ppm 16"])
def test_too_many_pixels_are_refused_before_decoding(name: str):
    probe(CASES[name], max_pixels=54)
    with pytest.raises(ImageTooLargeError, match="max_pixels"):
        probe(CASES[name], max_pixels=53)


@pytest.mark.parametrize("name", ["png color", "png 16 alpha", "jpeg", "webp", "tiff", "bmp"])
def test_only_a_whole_file_has_a_size(name: str, tmp_path: Path):
    path = tmp_path / "result"
    data = CASES[name]
    path.write_bytes(data)
    assert whole_size(path) == (6, 9)
    for end in (0, 4, len(data) // 2, len(data) * 3 // 4):
        path.write_bytes(data[:end])
        assert whole_size(path) is None
    assert whole_size(tmp_path / "missing") is None


def test_an_image_far_too_large_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "result.jpg"
    path.write_bytes(CASES["jpeg"])
    assert whole_size(path, max_pixels=54) == (6, 9)
    monkeypatch.setattr(probing, "read_image", None)
    assert whole_size(path, max_pixels=53) == (6, 9)


def test_a_png_with_a_changed_byte_or_without_pixels_is_not_whole(tmp_path: Path):
    path = tmp_path / "result.png"
    data = bytearray(CASES["png color"])
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert whole_size(path) is None
    chunks = [c for c in _chunks(CASES["png color"]) if c[0] != b"IDAT"]
    empty = probing.png.SIGNATURE + b"".join(samples.png_chunk(*c) for c in chunks)
    path.write_bytes(empty)
    assert whole_size(path) is None


def test_a_result_that_cannot_be_checked_is_not_taken_for_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def without_library(*_: object, **__: object) -> None:
        raise MissingDependencyError("no cv2")

    (tmp_path / "a.jpg").write_bytes(CASES["jpeg"])
    monkeypatch.setattr(probing, "read_image", without_library)
    assert whole_size(tmp_path / "a.jpg") is None
