"""Animated GIF, PNG and WebP: delays, plays, transparency, and films made of them."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as pillow
from video_samples import Clip, make_clip, moving, run, times

from realesr_cli.errors import VideoError
from realesr_cli.video import animations

DELAYS = [40, 50, 60, 70, 80, 90, 100, 110]


def images(alpha: bool) -> list[Any]:
    """Frames of few colors, each with a bright pixel elsewhere."""
    found = []
    for number in range(len(DELAYS)):
        pixels = np.full((24, 32, 4 if alpha else 3), 40, np.uint8)
        pixels[..., 0] = 20 * number
        pixels[5, number, :3] = 255
        if alpha:
            pixels[..., 3] = 255
            pixels[:8, :8, 3] = 0
        found.append(pillow.fromarray(pixels))
    return found


def make(path: Path, *, alpha: bool = False, loop: int | None = 3) -> Path:
    first, *rest = images(alpha)
    options: dict[str, Any] = {} if loop is None else {"loop": loop}
    if path.suffix == ".webp":
        options["lossless"] = True
    first.save(path, save_all=True, append_images=rest, duration=DELAYS, **options)
    return path


def read(path: Path) -> tuple[list[Any], list[int], Any]:
    """Frames as RGBA arrays, delays, and the loop count as stored."""
    with pillow.open(path) as image:
        frames, delays = [], []
        for number in range(image.n_frames):
            image.seek(number)
            image.load()
            frames.append(np.asarray(image.convert("RGBA")))
            delays.append(round(image.info["duration"]))
        return frames, delays, image.info.get("loop")


@pytest.mark.parametrize(
    ("name", "target", "alpha", "loop", "stored"),
    [
        ("a.gif", "b.gif", False, 3, 3),
        ("a.gif", "b.gif", False, 0, 0),
        ("a.gif", "b.gif", False, None, None),
        ("a.gif", "b.webp", False, 3, 4),
        ("a.png", "b.png", True, 2, 2),
        ("a.webp", "b.webp", True, 0, 0),
        ("a.png", "b.gif", True, 2, 1),
    ],
)
def test_delays_plays_and_transparency_are_kept(
    tmp_path: Path, name: str, target: str, alpha: bool, loop: int | None, stored: int | None
) -> None:
    source = make(tmp_path / name, alpha=alpha, loop=loop)
    report = run(source, tmp_path / target, chunk_seconds=0.2)
    assert report.chunks > 1
    frames, delays, found = read(tmp_path / target)
    assert delays == DELAYS
    assert found == stored
    old = read(source)[0]
    assert len(frames) == len(old) == report.frames_out
    for one, other in zip(old, frames, strict=True):
        wanted = one.repeat(2, 0).repeat(2, 1)
        assert (other[..., 3] == wanted[..., 3]).all()
        shown = wanted[..., 3] > 0
        # Colors may bleed into transparent pixels, and a GIF has 256 of them.
        assert np.abs(other.astype(int) - wanted)[shown].mean() < 2


def test_a_film_of_an_animation_and_back(tmp_path: Path) -> None:
    source = make(tmp_path / "a.gif")
    run(source, tmp_path / "b.mkv")
    sums = np.cumsum([0, *DELAYS[:-1]])
    assert times(tmp_path / "b.mkv") == [Fraction(int(t), 1000) for t in sums]
    run(tmp_path / "b.mkv", tmp_path / "c.gif")
    # PyAV 18.0 loses how long the last frame of a Matroska file is shown.
    assert read(tmp_path / "c.gif")[1][:-1] == DELAYS[:-1]


def test_delays_of_a_gif_do_not_drift(tmp_path: Path) -> None:
    """30 frames per second are 33.3 ms each, and a GIF counts in 10 ms."""
    source = make_clip(tmp_path / "a.mp4", moving(30), Clip(rate=30, time_base=Fraction(1, 30)))
    run(source, tmp_path / "b.gif")
    assert sum(read(tmp_path / "b.gif")[1]) == 1000


def test_animations_need_no_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make(tmp_path / "a.gif")
    for name in [name for name in sys.modules if name.partition(".")[0] == "av"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "av", None)
    assert run(source, tmp_path / "b.gif").frames_out == len(DELAYS)


def test_an_interrupted_animation_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make(tmp_path / "a.gif")
    run(source, tmp_path / "whole.gif", chunk_seconds=0.2)

    def fail(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("realesr_cli.video.upscale_video.write_animation", fail)
        with pytest.raises(KeyboardInterrupt):
            run(source, tmp_path / "b.gif", chunk_seconds=0.2)
    report = run(source, tmp_path / "b.gif", chunk_seconds=0.2)
    assert report.chunks_resumed == report.chunks
    assert (tmp_path / "b.gif").read_bytes() == (tmp_path / "whole.gif").read_bytes()


def test_still_and_broken_images_are_refused(tmp_path: Path) -> None:
    images(False)[0].save(tmp_path / "a.gif")
    with pytest.raises(VideoError, match="image"):
        run(tmp_path / "a.gif", tmp_path / "b.gif")
    (tmp_path / "c.gif").write_bytes(make(tmp_path / "d.gif").read_bytes()[:40])
    with pytest.raises(VideoError, match=r"c\.gif"):
        run(tmp_path / "c.gif", tmp_path / "b.gif")
    assert animations.find_animation(make(tmp_path / "e.webp")) == "webp"
