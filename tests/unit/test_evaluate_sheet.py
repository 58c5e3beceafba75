"""The sheet of a comparison: where its crops lie, what they show, and which are chosen."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from comparison_samples import SCALE, comparison, photo
from numpy.typing import NDArray
from PIL import Image as pillow
from PIL import ImageCms, ImageFont

from realesr_cli.errors import ConfigError, MissingDependencyError, UnsupportedImageError
from realesr_cli.evaluate import sheet
from realesr_cli.evaluate.comparison import Photo, PhotoVersion
from realesr_cli.evaluate.settings import CropRegion, SheetSettings
from realesr_cli.evaluate.sheet import GAP, MARGIN, draw_sheet, find_detail, write_sheet
from realesr_cli.image.types import Image

CROP = CropRegion(10, 6, 40, 30)


def of_crop(img: NDArray[np.uint8], crop: CropRegion, factor: int) -> NDArray[np.uint8]:
    rows = slice(crop.y * factor, (crop.y + crop.height) * factor)
    return img[rows, crop.x * factor : (crop.x + crop.width) * factor]


def cells(drawn: NDArray[np.uint8], columns: int, crop: CropRegion) -> list[NDArray[np.uint8]]:
    """The cells of the only row of a sheet, found by where they must end."""
    width, height = crop.width * SCALE, crop.height * SCALE
    bottom = drawn.shape[0] - MARGIN - sheet.SMALL - 3 * sheet.PADDING
    lefts = [MARGIN + number * (width + GAP) for number in range(columns)]
    return [drawn[bottom - height : bottom, left : left + width] for left in lefts]


def test_crops_are_pixels_of_the_versions() -> None:
    what = comparison()
    drawn = draw_sheet(what, SheetSettings(regions=(CROP,)))
    source, plain, enlarged = (v.image.pixels for v in what.photos[0].versions)
    shown = cells(drawn, 3, CROP)
    squares = of_crop(source, CROP, 1).repeat(SCALE, 0).repeat(SCALE, 1)
    assert np.array_equal(shown[0], squares)
    assert np.array_equal(shown[1], of_crop(plain, CROP, SCALE))
    assert np.array_equal(shown[2], of_crop(enlarged, CROP, SCALE))


def test_size_follows_from_the_crops() -> None:
    one = draw_sheet(comparison(), SheetSettings(regions=(CROP,)))
    two = draw_sheet(comparison(), SheetSettings(regions=(CROP, CropRegion(0, 0, 40, 20))))
    assert one.shape[1] == 2 * MARGIN + 3 * CROP.width * SCALE + 2 * GAP
    assert two.shape[1] == one.shape[1]
    assert two.shape[0] - one.shape[0] == 20 * SCALE + sheet.SMALL + 3 * sheet.PADDING
    both = draw_sheet(comparison(photo(), photo("b.png")), SheetSettings(regions=(CROP,)))
    assert both.shape[0] == 2 * one.shape[0] - MARGIN


def test_labels_are_drawn_and_fit() -> None:
    narrow = SheetSettings(regions=(CropRegion(0, 0, 4, 4),))
    one = photo("a very long name of a photo " * 20)
    versions = tuple(dataclasses.replace(v, name=v.name + " and more" * 20) for v in one.versions)
    drawn = draw_sheet(comparison(dataclasses.replace(one, versions=versions)), narrow)
    assert drawn.shape[1] == 2 * MARGIN + 3 * sheet.NARROWEST + 2 * GAP
    assert (drawn[:, -MARGIN:] == 255).all(), "text runs out of the sheet"
    title = drawn[MARGIN : MARGIN + sheet.TITLE]
    assert (title < 128).any()
    names = drawn[MARGIN + sheet.TITLE + 2 * sheet.PADDING :][: sheet.NAME]
    for number in range(3):
        left = MARGIN + number * (sheet.NARROWEST + GAP)
        assert (names[:, left : left + sheet.NARROWEST] < 128).any(), number
        assert (names[:, left - GAP : left] == 255).all(), "a name runs into the next column"


def test_most_detailed_parts() -> None:
    pixels = np.full((60, 80, 3), 128, np.uint8)
    rng = np.random.default_rng(0)
    pixels[20:40, 50:70] = rng.integers(0, 256, (20, 20, 3))
    pixels[5:25, 5:25] = rng.integers(90, 166, (20, 20, 3))
    first, second = find_detail(Image(pixels), (20, 20), 2)
    assert abs(first.x - 50) <= 1
    assert abs(first.y - 20) <= 1
    assert abs(second.x - 5) <= 1
    assert abs(second.y - 5) <= 1


def test_transparent_pixels_have_no_detail() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 80, 3), dtype=np.uint8)
    alpha = np.zeros((40, 80), np.uint8)
    alpha[:, 45:] = 255
    (found,) = find_detail(Image(pixels, alpha), (30, 30), 1)
    assert found.x >= 40


def test_parts_overlap_by_a_quarter_at_most() -> None:
    rng = np.random.default_rng(1)
    found = find_detail(Image(rng.integers(0, 256, (50, 90, 3), dtype=np.uint8)), (20, 24), 50)
    assert len(found) > 4
    for number, a in enumerate(found):
        assert 0 <= a.x <= 90 - 24
        assert 0 <= a.y <= 50 - 20
        for b in found[:number]:
            assert abs(a.x - b.x) >= 18 or abs(a.y - b.y) >= 15


def test_image_smaller_than_a_part() -> None:
    image = Image(np.zeros((5, 300, 1), np.uint8))
    assert find_detail(image, (64, 64), 9)[0] == CropRegion(0, 0, 64, 5)
    assert find_detail(Image(np.zeros((5, 6, 1), np.uint8)), (64, 64), 9) == [
        CropRegion(0, 0, 6, 5)
    ]


def test_transparency_shows_a_checkerboard() -> None:
    clear = Image(np.zeros((192, 256, 3), np.uint8), np.zeros((192, 256), np.uint8))
    one = photo()
    versions = (*one.versions[:2], PhotoVersion("net", "model", clear))
    drawn = draw_sheet(
        comparison(dataclasses.replace(one, versions=versions)), SheetSettings(regions=(CROP,))
    )
    shown = cells(drawn, 3, CROP)[2]
    assert set(np.unique(shown)) == {207, 255}


def test_colors_are_srgb() -> None:
    wide = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    gray_in_linear = Image(np.full((192, 256, 3), 55, np.uint8), icc=linear(wide))
    one = photo()
    versions = (*one.versions[:2], PhotoVersion("net", "model", gray_in_linear))
    drawn = draw_sheet(
        comparison(dataclasses.replace(one, versions=versions)), SheetSettings(regions=(CROP,))
    )
    assert np.abs(cells(drawn, 3, CROP)[2].astype(int) - 128).max() <= 2


def linear(profile: bytes) -> bytes:
    """sRGB's profile with its curves replaced by none, which means linear light."""
    data = bytearray(profile)
    count = int.from_bytes(data[128:132], "big")
    for number in range(count):
        entry = 132 + 12 * number
        if bytes(data[entry : entry + 4]) in (b"rTRC", b"gTRC", b"bTRC"):
            offset = int.from_bytes(data[entry + 4 : entry + 8], "big")
            data[offset : offset + 12] = b"curv" + bytes(8)
            data[entry + 8 : entry + 12] = (12).to_bytes(4, "big")
    return bytes(data)


def test_gray_photos() -> None:
    one = photo()
    versions = tuple(
        dataclasses.replace(v, image=Image(v.image.pixels[..., :1])) for v in one.versions
    )
    gray = Photo(one.name, one.height, one.width, (), versions)
    drawn = draw_sheet(comparison(gray), SheetSettings(regions=(CROP,)))
    expected = of_crop(versions[1].image.pixels, CROP, SCALE)
    assert np.array_equal(cells(drawn, 3, CROP)[1], expected.repeat(3, axis=2))


def test_written_in_the_format_of_the_name(tmp_path: Path) -> None:
    write_sheet(comparison(), tmp_path / "sheet.png")
    with pillow.open(tmp_path / "sheet.png") as image:
        assert np.array_equal(np.array(image), draw_sheet(comparison()))
    with pytest.raises(UnsupportedImageError):
        write_sheet(comparison(), tmp_path / "sheet.xyz")


def test_crop_outside_the_photo() -> None:
    with pytest.raises(ConfigError, match=r"crop 30,20,40,30 .* photo.png \(64x48\)"):
        draw_sheet(comparison(), SheetSettings(regions=(CropRegion(30, 20, 40, 30),)))


def test_crop_is_read() -> None:
    assert CropRegion.parse("1, 2,30,40") == CropRegion(1, 2, 30, 40)
    for text in ("", "1,2,3", "1,2,3,x", "-1,2,3,4", "1,2,3,4,5"):
        with pytest.raises(ConfigError, match="expected X,Y,WIDTH,HEIGHT"):
            CropRegion.parse(text)
    with pytest.raises(ConfigError, match="at least 1"):
        CropRegion.parse("1,2,0,4")


def test_without_freetype(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(size: float | None = None) -> None:
        raise ImportError("The _imagingft C module is not installed")

    monkeypatch.setattr(ImageFont, "load_default", absent)
    with pytest.raises(MissingDependencyError, match="FreeType"):
        draw_sheet(comparison())
