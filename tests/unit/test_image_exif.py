"""EXIF and XMP: orientation out, sizes right, thumbnail gone, everything else byte for byte."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_samples import XMP, exif_block
from PIL import ExifTags
from PIL import Image as pillow

from realesr_cli.image import exif, ifd, xmp


def _tags(block: bytes) -> pillow.Exif:
    tags = pillow.Exif()
    tags.load(block)
    return tags


@pytest.mark.parametrize("order", ["<", ">"])
def test_only_the_orientation_changes(order: str):
    block = exif_block(order, orientation=6)
    assert exif.orientation_of(block, None) == 6
    upright = exif.make_upright(block)
    assert exif.orientation_of(upright, None) == 1
    different = [i for i, (a, b) in enumerate(zip(block, upright, strict=True)) if a != b]
    assert len(different) == 1
    assert _tags(upright)[274] == 1
    assert _tags(upright)[271] == "A maker of cameras"


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_thumbnail_goes_and_nothing_else(order: str):
    img = b"\xff\xd8THUMBNAIL\xff\xd9" * 9
    block = exif_block(order, thumbnail=img)
    assert _tags(block).get_ifd(ExifTags.IFD.IFD1)
    upright = exif.make_upright(block)
    assert b"THUMB" not in upright
    assert not _tags(upright).get_ifd(ExifTags.IFD.IFD1)
    assert len(upright) < len(block) - len(img)
    bare = exif.make_upright(exif_block(order))
    assert upright[: len(bare) - 4] == bare[: len(bare) - 4]


def test_bytes_nobody_names_stay():
    # A maker note may point behind everything else.
    block = exif_block() + b"the maker's own"
    assert exif.make_upright(block).endswith(b"the maker's own")


def test_a_thumbnail_before_other_bytes_is_blanked():
    block = exif_block(thumbnail=b"THUMBNAIL" * 9) + b"the maker's own"
    upright = exif.make_upright(block)
    assert b"THUMB" not in upright
    assert upright.endswith(b"the maker's own")
    assert len(upright) == len(block)


@pytest.mark.parametrize("order", ["<", ">"])
def test_sizes_that_are_stated_are_brought_up_to_date(order: str):
    block = exif_block(order, orientation=1)
    inner = _tags(exif.resize(block, 90_000, 120_000)).get_ifd(34665)
    assert (inner[40962], inner[40963]) == (120_000, 90_000)
    assert inner[37500] == _tags(block).get_ifd(34665)[37500]
    assert _tags(exif.resize(block, 9, 12))[271] == "A maker of cameras"


def test_a_block_without_sizes_gets_none():
    tags = pillow.Exif()
    tags[271] = "maker"
    block = exif.without_prefix(tags.tobytes())
    assert block is not None
    assert exif.resize(block, 9, 12) == block


@pytest.mark.parametrize("value", [0, 9, 77])
def test_an_orientation_out_of_range_means_none(value: int):
    assert exif.orientation_of(exif_block(orientation=value), None) == 1


def test_exif_goes_before_xmp():
    turned = XMP.replace(b'Orientation="1"', b'Orientation="8"')
    assert exif.orientation_of(None, turned) == 8
    assert exif.orientation_of(exif_block(orientation=3), turned) == 3
    assert exif.orientation_of(b"damaged", turned) == 8
    element = b"<tiff:Orientation>5</tiff:Orientation>"
    assert exif.orientation_of(None, element) == 5
    assert xmp.make_upright(element) == b"<tiff:Orientation>1</tiff:Orientation>"
    assert xmp.make_upright(turned) == XMP


def test_sizes_in_xmp_are_brought_up_to_date():
    new = xmp.resize(XMP, 120, 160)
    assert b'tiff:ImageWidth="160"' in new
    assert b"<exif:PixelYDimension>120<" in new
    assert xmp.resize(b"<nothing/>", 120, 160) == b"<nothing/>"


@pytest.mark.parametrize("block", [b"", b"II*\0", b"XX*\0\x08\0\0\0\0\0", b"II\x07\0\x08\0\0\0"])
def test_damaged_blocks_raise_one_error(block: bytes):
    with pytest.raises(ifd.MalformedDirectoryError):
        exif.make_upright(block)
    assert exif.resize(block, 3, 4) == block


@given(st.integers(0, 400), st.binary(min_size=1, max_size=12), st.sampled_from("<>"))
def test_no_damage_escapes_as_another_error(where: int, damage: bytes, order: str):
    block = exif_block(order, thumbnail=b"thumb")
    block = block[:where] + damage + block[where + len(damage) :]
    for function in (exif.make_upright, lambda b: exif.resize(b, 5, 6), exif.to_tiff):
        try:
            function(block)
        except ifd.MalformedDirectoryError:
            continue
    assert 1 <= exif.orientation_of(block, None) <= 8


@given(st.integers(1, 8))
def test_turning_and_turning_back_is_nothing(orientation: int):
    array = np.arange(24).reshape(4, 6)
    back = {6: 8, 8: 6}.get(orientation, orientation)
    turned = exif.orient(array, orientation)
    assert (turned.shape == (6, 4)) == exif.swaps_sides(orientation)
    assert turned.flags.c_contiguous
    assert np.array_equal(exif.orient(turned, back), array)


@pytest.mark.parametrize("order", ["<", ">"])
def test_tags_pass_through_a_tiff_directory(order: str):
    block = exif_block(order, orientation=1)
    parsed = ifd.parse(block)
    again = exif.from_tiff(parsed, parsed.directory(parsed.first))
    assert again is not None
    assert again[:2] == block[:2]
    before, after = _tags(block), _tags(again)
    assert after[271] == before[271]
    assert 274 not in after  # how the pixels lie is not copied
    assert after.get_ifd(34853) == before.get_ifd(34853)
    for tag, value in before.get_ifd(34665).items():
        assert after.get_ifd(34665)[tag] == value


def test_the_directory_for_interoperability_stays_below_exif():
    tags = pillow.Exif()
    tags[271] = "maker"
    tags.get_ifd(34665)[40965] = {1: "R98"}
    block = exif.without_prefix(tags.tobytes())
    assert block is not None
    parsed = ifd.parse(block)
    again = exif.from_tiff(parsed, parsed.directory(parsed.first))
    assert again is not None
    assert _tags(again).get_ifd(40965)[1] == "R98"


def test_a_tiff_that_describes_nothing_gives_no_exif():
    entries = [ifd.integers("<", 256, ifd.LONG, 7), ifd.integers("<", 257, ifd.LONG, 9)]
    block = ifd.parse(b"II*\0\x08\0\0\0" + ifd.build(entries, "<", 8))
    assert exif.from_tiff(block, block.directory(block.first)) is None


@given(st.floats(1, 1e6), st.sampled_from("<>"))
def test_rationals_are_near(value: float, order: str):
    entry = ifd.rational(order, 282, value)  # type: ignore[arg-type]
    block = ifd.IfdBlock(ifd.build([entry], order, 0), order, False, 0)  # type: ignore[arg-type]
    found = block.ratio(block.directory(0), 282)
    assert found == pytest.approx(value, rel=1e-5)
