"""Films end to end: times, copied streams, geometry, bit depth, independent decoding."""

from __future__ import annotations

from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from video_samples import Clip, decoded, make_clip, make_rich, moving, packets, run, times


def contents(path: Path, stream: int) -> list[tuple[Any, ...]]:
    """Times and hashes of packets; a duration may be stated or follow from the codec."""
    return [(pts, dts, digest) for pts, dts, _, _, digest in packets(path, stream)]


VARIABLE = tuple(accumulate([512, 700, 300, 1500, 512, 64, 900] * 5))[:30]


@pytest.mark.parametrize(
    ("name", "target", "clip", "error"),
    [
        ("a.mp4", "b.mp4", Clip(pts=VARIABLE), 0),
        ("a.mp4", "b.mkv", Clip(pts=VARIABLE), Fraction(1, 2000)),
        ("a.mkv", "b.mkv", Clip(pts=VARIABLE), 0),
        ("a.mkv", "b.mp4", Clip(pts=VARIABLE), 0),
        ("a.avi", "b.mkv", Clip("mpeg4", (("bf", "2"), ("g", "9")), time_base=Fraction(1, 25)), 0),
        ("a.ts", "b.mp4", Clip(), 0),
    ],
)
def test_timestamps_are_those_of_the_source(
    tmp_path: Path, name: str, target: str, clip: Clip, error: Fraction
) -> None:
    source = make_clip(tmp_path / name, moving(30), clip)
    report = run(source, tmp_path / target, encoder_opt=("preset=ultrafast",))
    old, new = times(source), times(tmp_path / target)
    assert len(old) == len(new) == report.frames_out == 30
    assert report.chunks >= 2
    assert max(abs(a - b) for a, b in zip(old, new, strict=True)) <= error


def test_everything_else_is_copied(tmp_path: Path) -> None:
    source, target = make_rich(tmp_path / "a.mkv", tmp_path), tmp_path / "b.mkv"
    report = run(source, target)
    assert all(stream.copied for stream in report.streams)
    assert report.exit_code == 0
    with av.open(str(source)) as old, av.open(str(target)) as new:
        assert len(old.streams) == len(new.streams) == 7
        for one, other in zip(old.streams, new.streams, strict=True):
            assert one.type == other.type
            assert one.disposition == other.disposition
            for key in ("language", "title", "filename", "mimetype"):
                assert one.metadata.get(key) == other.metadata.get(key)
        assert new.streams[5].data == old.streams[5].data  # type: ignore[union-attr]
        assert [dict(c, time_base=0) for c in new.chapters()] == [
            dict(c, time_base=0) for c in old.chapters()
        ]
        assert len(new.chapters()) == 2
        assert new.metadata["title"] == "A film"
        assert new.streams.best("video") is new.streams[0]
    for index in (1, 2, 3, 4, 6):
        assert contents(target, index) == contents(source, index)
        assert contents(target, index)
    frames = decoded(target)
    assert (frames[0].width, frames[0].height) == (128, 96)
    enlarged = frames[7].to_ndarray(format="gray").astype(int)
    expected = decoded(source)[7].to_ndarray(format="gray").repeat(2, 0).repeat(2, 1)
    assert np.abs(enlarged - expected).mean() < 3
