"""Profiles: which curves are near sRGB's, which are not, and that the way there has a way back."""

from __future__ import annotations

import io

import image_samples as samples
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as pillow
from PIL import ImageCms

from realesr_cli.image import color
from realesr_cli.image.color import is_srgb, needs_conversion, tone_curve
from realesr_cli.image.read import read_image
from realesr_cli.image.types import Image
from realesr_cli.image.write import encode_image

SRGB_PARAMETERS = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
REC709_PARAMETERS = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)


def _table(function: object, count: int) -> bytes:
    values = function(np.linspace(0, 1, count)) * 65535  # type: ignore[operator]
    return samples.curve_tag(*np.rint(values).astype(int).tolist())


NEAR = {
    "sRGB": samples.parametric_tag(3, *SRGB_PARAMETERS),
    "sRGB table": _table(lambda x: color.SRGB.decode(x), 1024),
    "2.2": samples.curve_tag(563),
    "2.0": samples.curve_tag(512),
    "2.4": samples.parametric_tag(0, 2.4),
    "L*": samples.parametric_tag(3, 3.0, 1 / 1.16, 0.16 / 1.16, 2700 / 24389, 0.08),
}
FAR = {
    "linear": samples.curve_tag(),
    "linear gamma": samples.curve_tag(256),
    "1.8": samples.curve_tag(461),
    "2.8": samples.parametric_tag(0, 2.8),
    "table": _table(lambda x: x**1.5, 256),
    "ProPhoto": samples.parametric_tag(3, 1.8, 1.0, 0.0, 1 / 16, 0.03125),
    "type 1": samples.parametric_tag(1, 1.7, 1.05, -0.05),
    "type 2": samples.parametric_tag(2, 1.6, 0.9, 0.05, 0.01),
    "type 4": samples.parametric_tag(4, 1.4, 0.98, 0.01, 0.2, 0.02, 0.005, 0.0),
}


@pytest.mark.parametrize("name", NEAR)
def test_profiles_near_srgb_are_left_alone(name: str):
    assert tone_curve(samples.rgb_profile(NEAR[name], samples.ADOBE_COLUMNS)) is None
    assert tone_curve(samples.gray_profile(NEAR[name])) is None


def test_no_profile_and_profiles_without_curves_are_left_alone():
    assert tone_curve(None) is None
    assert tone_curve(b"") is None
    assert tone_curve(b"no profile" * 30) is None
    assert tone_curve(samples.profile("RGB", {"A2B0": bytes(40)})) is None
    assert tone_curve(samples.profile("CMYK", {"A2B0": bytes(40)})) is None
    assert tone_curve(samples.LINEAR[:150]) is None


@pytest.mark.parametrize(
    "tag",
    [
        b"curv",
        samples.curve_tag(0),
        samples.curve_tag(65535, 0),
        samples.curve_tag(1, 2, 3)[:-2],
        samples.parametric_tag(9, 1.0),
        samples.parametric_tag(0, -1.0),
        samples.parametric_tag(3, 2.0, 1.0)[:-4],
        b"XXXX" + bytes(20),
    ],
)
def test_curves_that_are_damaged_or_fall_are_left_alone(tag: bytes):
    assert tone_curve(samples.gray_profile(tag)) is None


@pytest.mark.parametrize("name", FAR)
def test_the_way_to_srgb_is_that_of_littlecms(name: str):
    profile = samples.rgb_profile(FAR[name], samples.SRGB_COLUMNS)
    curve = tone_curve(profile)
    assert curve is not None
    levels = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, 2)
    expected = ImageCms.profileToProfile(
        pillow.fromarray(levels),
        io.BytesIO(profile),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
    )
    found = curve.to_srgb(levels.astype(np.float32) / 255) * 255
    assert np.abs(found - np.asarray(expected)).max() < 1.6


@pytest.mark.parametrize("name", FAR)
def test_the_way_back_is_exact_for_sixteen_bits(name: str):
    curve = tone_curve(samples.gray_profile(FAR[name]))
    assert curve is not None
    levels = np.arange(65536, dtype=np.float32).reshape(256, 256, 1) / 65535
    if name == "type 1":  # flat below b / a, where nothing can come back
        levels = np.maximum(levels, 0.05 / 1.05)
    back = curve.from_srgb(curve.to_srgb(levels))
    assert np.abs(back - levels).max() < 0.25 / 65535
    assert back.dtype == np.float32


@given(
    st.lists(st.integers(1, 4000), min_size=2, max_size=40),
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20),
)
def test_any_rising_table_has_a_way_back(steps: list[int], values: list[float]):
    points = np.cumsum([0, *steps])
    points = np.rint(points / points[-1] * 65535).astype(int)
    curve = color.parse_profile(samples.gray_profile(samples.curve_tag(*points.tolist())))
    assert curve is not None
    tone = color.ToneCurve(curve.curves)
    x = np.array(values, np.float32)[None, :, None]
    back = tone.from_srgb(tone.to_srgb(x))
    steepest = len(steps) * np.diff(points).min() / 65535
    assert np.abs(back - x).max() < 1e-6 / max(steepest, 1e-3) + 1e-6


def test_channels_have_their_own_curves():
    tags = {
        "rTRC": samples.curve_tag(256),
        "gTRC": samples.curve_tag(461),
        "bTRC": samples.curve_tag(563),
    }
    curve = tone_curve(samples.profile("RGB", tags))
    assert curve is not None
    x = np.full((2, 3, 3), 0.5, np.float32)
    found = curve.to_srgb(x)[0, 0]
    assert found[0] == pytest.approx(0.7354, abs=1e-3)  # sRGB of linear one half
    assert found[0] > found[1] > found[2] == pytest.approx(0.5, abs=0.01)
    # Gray beside an RGB profile: green stands for it.
    assert curve.to_srgb(x[..., :1])[0, 0, 0] == pytest.approx(found[1])


def test_only_srgb_is_srgb():
    assert is_srgb(samples.SRGB)
    assert is_srgb(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for other in (samples.ADOBE, samples.LINEAR, b"", b"x" * 200):
        assert not is_srgb(other)
    same_columns = samples.rgb_profile(samples.curve_tag(563), samples.SRGB_COLUMNS)
    assert not is_srgb(same_columns)
    same_curve = samples.rgb_profile(NEAR["sRGB"], samples.ADOBE_COLUMNS)
    assert not is_srgb(same_curve)
    assert is_srgb(samples.gray_profile(NEAR["sRGB"]))


def _image(mode: str) -> pillow.Image:
    color = {"RGB": (200, 120, 60), "CMYK": (20, 90, 160, 30)}[mode]
    return pillow.new(mode, (6, 4), color)


def test_wide_gamuts_and_linear_images_keep_their_pixels_and_profile():
    for profile in (samples.ADOBE, samples.LINEAR):
        image = read_image(samples.pillow_bytes(_image("RGB"), "PNG", icc_profile=profile))
        assert image.icc == profile
        assert image.pixels[0, 0].tolist() == [200, 120, 60]
        assert image.notes == ()


LAB_TO_DEVICE = "A2B0"


def _lut_profile(space: str) -> bytes:
    """A profile of tables alone: the corners of the device cube to Lab (lut8Type)."""
    inputs = {"RGB": 3, "CMYK": 4}[space]
    grid = 2
    ramp = bytes(range(256))
    corners = []
    for index in range(grid**inputs):
        levels = [(index >> (inputs - 1 - i)) & 1 for i in range(inputs)]
        if space == "RGB":
            light = 30 * levels[0] + 60 * levels[1] + 10 * levels[2]
        else:
            light = 100 - min(100, 40 * sum(levels[:3]) + 100 * levels[3])
        corners += [round(light * 2.55), 128, 128]
    matrix = [1, 0, 0, 0, 1, 0, 0, 0, 1]
    head = b"mft1\0\0\0\0" + bytes([inputs, 3, grid, 0])
    head += b"".join((round(v * 65536)).to_bytes(4, "big") for v in matrix)
    table = head + ramp * inputs + bytes(corners) + ramp * 3
    found = bytearray(samples.profile(space, {"A2B0": table, "A2B1": table}))
    found[8:12] = b"\x02\x40\0\0"
    found[20:24] = b"Lab "
    if space == "CMYK":
        found[12:16] = b"prtr"
    return bytes(found)


def test_profiles_of_tables_alone_are_converted_with_a_word():
    profile = _lut_profile("RGB")
    assert needs_conversion(profile)
    assert not needs_conversion(samples.ADOBE)
    image = read_image(samples.pillow_bytes(_image("RGB"), "PNG", icc_profile=profile))
    assert image.icc is None
    assert any("tables" in note for note in image.notes)
    assert np.ptp(image.pixels[0, 0].astype(int)) <= 3  # this profile knows only gray
    deep = samples.noise(4, 4, 3, np.uint16)
    found = read_image(encode_image(Image(deep, icc=profile), "png"))
    assert np.array_equal(found.pixels, deep)
    assert found.icc == profile


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_goes_through_its_own_profile(kind: str):
    profile = _lut_profile("CMYK")
    data = samples.pillow_bytes(_image("CMYK"), kind, icc_profile=profile)
    image = read_image(data)
    assert image.notes == ("CMYK converted to sRGB",)
    assert image.icc is None
    assert np.ptp(image.pixels[0, 0].astype(int)) <= 3


@pytest.mark.parametrize("profile", [samples.ADOBE, b"rubbish", _lut_profile("CMYK")[:300]])
def test_a_profile_that_does_not_fit_is_not_used_on_inks(profile: bytes):
    data = samples.pillow_bytes(_image("CMYK"), "JPEG", icc_profile=profile)
    image = read_image(data)
    assert image.icc is None
    assert any("approximate" in note for note in image.notes)
