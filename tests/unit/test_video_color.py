"""Colors of films: matrices, ranges, bit depth, HDR metadata, geometry."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import Interpolation
from numpy.typing import NDArray
from video_samples import Clip, decoded, make_clip, moving, nearest, planes_of, run

from realesr_cli.errors import VideoError
from realesr_cli.video import encoder, frames
from realesr_cli.video.color import ColorTags
from realesr_cli.video.settings import VideoSettings
from realesr_cli.video.streams import open_film

PATCHES = np.array(
    [(235, 40, 40), (40, 235, 40), (40, 40, 235), (230, 230, 50), (60, 200, 220), (128, 128, 128),
     (20, 20, 20), (245, 245, 245)], np.uint8
)  # fmt: skip
LOSSLESS = Clip("ffv1", ())


def patches(width: int = 128, height: int = 16) -> NDArray[Any]:
    """Vertical stripes of the eight colors."""
    row = np.repeat(PATCHES, width // 8, axis=0)
    return np.repeat(row[None], height, axis=0)


def differences(source: Path, target: Path) -> list[tuple[float, float]]:
    """Mean and largest difference of each plane from the source's, repeated twice, in patches."""
    found = []
    for old, new in zip(planes_of(decoded(source)[0]), planes_of(decoded(target)[0]), strict=True):
        expected = old.repeat(2, 0).repeat(2, 1)
        step = new.shape[1] // 8
        inside = [slice(i * step + step // 4, (i + 1) * step - step // 4) for i in range(8)]
        gaps = np.concatenate([(new - expected)[:, part].ravel() for part in inside])
        found.append((float(gaps.mean()), float(np.abs(gaps).max())))
    return found


@pytest.mark.parametrize(("matrix", "range_"), [(m, r) for m in (6, 1, 9) for r in (1, 2)])
def test_colors_are_kept(tmp_path: Path, matrix: int, range_: int) -> None:
    clip = Clip("ffv1", (), matrix=matrix, range=range_, primaries=matrix, transfer=1)
    source = make_clip(tmp_path / "a.mkv", [patches()], clip)
    run(source, tmp_path / "b.mkv", codec="ffv1")
    for mean, largest in differences(source, tmp_path / "b.mkv"):
        assert abs(mean) <= 0.1
        assert largest <= 1
    frame = decoded(tmp_path / "b.mkv")[0]
    assert (frame.colorspace, frame.color_range) == (matrix, range_)
    assert (frame.color_primaries, frame.color_trc) == (matrix, 1)


@pytest.mark.parametrize(
    ("size", "matrix", "primaries"), [((192, 48), 6, 6), ((192, 576), 5, 5), ((1280, 16), 1, 1)]
)
def test_untagged_sources_are_tagged_by_their_size(
    tmp_path: Path, size: tuple[int, int], matrix: int, primaries: int
) -> None:
    """Players would guess BT.709 for an enlarged film of BT.601."""
    clip = Clip("ffv1", (), matrix={5: 6}.get(matrix, matrix), range=1)
    frame = encoder_frame(patches(*size), clip)
    source = make_clip(tmp_path / "a.mkv", [frame], LOSSLESS)
    assert decoded(source)[0].colorspace == 2
    run(source, tmp_path / "b.mkv", codec="ffv1")
    assert all(abs(mean) <= 0.1 and most <= 1
               for mean, most in differences(source, tmp_path / "b.mkv"))  # fmt: skip
    new = decoded(tmp_path / "b.mkv")[0]
    assert (new.colorspace, new.color_range, new.color_primaries) == (matrix, 1, primaries)


def encoder_frame(pixels: NDArray[Any], clip: Clip) -> av.VideoFrame:
    """A frame of YUV without tags."""
    from video_samples import to_frame

    tagged = to_frame(pixels, clip)
    plain = av.VideoFrame(tagged.width, tagged.height, tagged.format.name)
    for new, old in zip(plain.planes, tagged.planes, strict=True):
        new.update(bytes(old))
    return plain


def test_the_color_tests_notice_wrong_conversions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = Clip("ffv1", (), matrix=1, range=1, primaries=1, transfer=1)
    source = make_clip(tmp_path / "a.mkv", [patches()], clip)
    with monkeypatch.context() as patch:
        for module in (frames, encoder):
            patch.setattr(module, "scaling_flags", lambda: int(Interpolation.BICUBIC))
        run(source, tmp_path / "b.mkv", codec="ffv1")
    assert abs(differences(source, tmp_path / "b.mkv")[0][0]) > 0.4
    converted = frames._convert

    def as_bt601(source: Any, *rest: Any) -> Any:
        other = ColorTags(6, 1, 1, 1)
        import dataclasses

        return converted(dataclasses.replace(source, color=other), *rest)

    with monkeypatch.context() as patch:
        patch.setattr(frames, "_convert", as_bt601)
        run(source, tmp_path / "c.mkv", codec="ffv1")
    assert max(most for _, most in differences(source, tmp_path / "c.mkv")) > 5


def test_settings_override_wrong_tags(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mkv", [patches()], Clip("ffv1", (), matrix=1, range=1))
    settings = VideoSettings(color="bt601", range="pc")
    color = open_film(source, settings).color
    assert (color.matrix, color.range) == (6, 2)


def test_ten_bits_stay_ten_bits(tmp_path: Path) -> None:
    levels = np.arange(1024, dtype=np.uint16)[None].repeat(16, 0)
    frame = av.VideoFrame(1024, 16, "yuv420p10le")
    frame.planes[0].update(levels.tobytes())
    for plane in frame.planes[1:]:
        plane.update(np.full((8, 512), 512, np.uint16).tobytes())
    clip = Clip("ffv1", (), "yuv420p10le", matrix=1, range=2, primaries=1, transfer=1)
    source = make_clip(tmp_path / "a.mkv", [frame], clip)
    run(source, tmp_path / "b.mkv", codec="ffv1")
    luma = planes_of(decoded(tmp_path / "b.mkv")[0])[0]
    assert len(np.unique(luma)) >= 1000
    assert np.abs(luma - levels.repeat(2, 0).repeat(2, 1)).max() <= 1
    assert decoded(tmp_path / "b.mkv")[0].format.name == "yuv420p10le"


def hdr_data(frame: av.VideoFrame) -> dict[str, bytes]:
    """Static HDR metadata of a frame, by type."""
    wanted = ("MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL")
    items: Any = frame.side_data
    return {item.type.name: bytes(item) for item in items if item.type.name in wanted}


@pytest.mark.parametrize("codec", ["auto", "av1"])
def test_static_hdr_metadata_is_kept(tmp_path: Path, codec: str) -> None:
    params = (
        "log-level=error:master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)"
        "L(10000000,50):max-cll=1000,400:hdr10=1:repeat-headers=1"
    )
    clip = Clip(
        "libx265", (("preset", "ultrafast"), ("x265-params", params)), "yuv420p10le",
        matrix=9, range=1, primaries=9, transfer=16,
    )  # fmt: skip
    deep = [pixels.astype(np.uint16) * 257 for pixels in moving(3)]
    source = make_clip(tmp_path / "a.mkv", deep, clip)
    preset = "ultrafast" if codec == "auto" else "12"
    run(source, tmp_path / "b.mkv", codec=codec, preset=preset)
    old, new = decoded(source)[0], decoded(tmp_path / "b.mkv")[0]
    assert len(hdr_data(old)) == 2
    assert hdr_values(new) == pytest.approx(hdr_values(old), rel=1e-3)
    assert new.format.name == "yuv420p10le"
    assert (new.colorspace, new.color_trc, new.color_primaries) == (9, 16, 9)
    with pytest.raises(VideoError, match="HDR"):
        run(source, tmp_path / "c.mkv", hdr="refuse")


def hdr_values(frame: av.VideoFrame) -> list[float]:
    """The numbers of the metadata; encoders store the same fractions with other denominators."""
    data = hdr_data(frame)
    numbers = np.frombuffer(data["MASTERING_DISPLAY_METADATA"][:80], np.int32).reshape(-1, 2)
    levels = np.frombuffer(data["CONTENT_LIGHT_LEVEL"][:8], np.uint32)
    return [*(numbers[:, 0] / numbers[:, 1]), *levels]


@pytest.mark.parametrize("rotation", [90, 180])
def test_geometry_is_kept(tmp_path: Path, rotation: int) -> None:
    clip = Clip(sar=Fraction(16, 15), rotation=rotation)
    source = make_clip(tmp_path / "a.mp4", moving(3, 62, 46), clip)
    for name in ("b.mp4", "b.mkv"):
        run(source, tmp_path / name)
        with av.open(str(tmp_path / name)) as container:
            stream = container.streams.video[0]
            assert stream.sample_aspect_ratio == Fraction(16, 15)
            assert (stream.width, stream.height) == (124, 92)
            assert next(container.decode(stream)).rotation == decoded(source)[0].rotation != 0


def test_odd_sizes(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mkv", moving(2, 63, 47), Clip("ffv1", ()))
    assert run(source, tmp_path / "b.mkv").frames_out == 2
    report = run(source, tmp_path / "c.mkv", upscaler=nearest(3))
    assert any("190x142" in note for note in report.notes)
    assert decoded(tmp_path / "c.mkv")[0].width == 190


def test_interlaced_sources_are_noted_and_deinterlaced(tmp_path: Path) -> None:
    woven = []
    for one, other in zip(moving(12), moving(13)[1:], strict=True):
        frame = one.copy()
        frame[1::2] = np.roll(other, 9, axis=1)[1::2]
        woven.append(frame)
    options = (("preset", "ultrafast"), ("x264-params", "tff=1"), ("flags", "+ildct"))
    source = make_clip(tmp_path / "a.mkv", woven, Clip(options=options))
    report = run(source, tmp_path / "b.mkv", codec="ffv1")
    assert any("interlaced" in note for note in report.notes)
    report = run(source, tmp_path / "c.mkv", codec="ffv1", deinterlace="auto", chunk_seconds=0.2)
    assert report.frames_out == 12
    assert report.chunks > 1
    assert not report.concealed

    def combing(path: Path) -> float:
        rows = planes_of(decoded(path)[6])[0][::2]
        return float(np.abs(rows[1:-1] * 2 - rows[:-2] - rows[2:]).mean())

    assert combing(tmp_path / "c.mkv") < combing(tmp_path / "b.mkv") / 2
