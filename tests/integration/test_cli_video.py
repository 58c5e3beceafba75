"""`realesr video` as a user calls it: refusals, exit codes, JSON, the plan, damaged files."""

from __future__ import annotations

import itertools
import json
import re
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image as pillow
from upscale_cli import Outcome, save_tiny
from video_samples import Clip, decoded, make_clip, make_rich, moving, nearest, packets, run

from realesr_cli.cli.main import run as run_command
from realesr_cli.errors import RealesrWarning
from realesr_cli.video.settings import VideoSettings
from realesr_cli.video.streams import decode, open_film

Video = Callable[..., Outcome]


@pytest.fixture
def video(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> Video:
    """`realesr video` in an empty folder, with a tiny network x2."""
    model = save_tiny(tmp_path / "tiny.pth", scale=2)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Outcome:
        own = ["video", "-m", str(model), "--device", "cpu", "--precision", "fp32"]
        capfdbinary.readouterr()
        with warnings.catch_warnings(), pytest.raises(SystemExit) as ended:
            run_command([*own, *(str(argument) for argument in arguments)])
        out, err = capfdbinary.readouterr()
        assert isinstance(ended.value.code, int)
        return Outcome(ended.value.code, out, err.decode())

    return call


def write_text(path: Path) -> None:
    path.write_text("not a film\n" * 20)


def write_noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(5000))


def write_truncated(path: Path) -> None:
    whole = make_clip(path.with_name("whole.mp4"), moving(5)).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    path.with_name("whole.mp4").unlink()


def write_sound(path: Path, *, cover: bool = False) -> None:
    with av.open(str(path), "w", format="matroska") as output:
        stream = output.add_stream("aac", rate=16000)
        if cover:
            import io

            data = io.BytesIO()
            pillow.new("RGB", (32, 32)).save(data, "JPEG")
            output.add_attachment("cover.jpg", "image/jpeg", data.getvalue())
        for block in range(4):
            sound = av.AudioFrame.from_ndarray(
                np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
            )
            sound.sample_rate, sound.pts = 16000, block * 1024
            output.mux(stream.encode(sound))
        output.mux(stream.encode(None))


def write_no_frames(path: Path) -> None:
    with av.open(str(path), "w", format="matroska") as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        output.start_encoding()


def write_image(path: Path) -> None:
    pillow.new("RGB", (32, 32)).save(path, "JPEG")


BAD_INPUTS = {
    "missing": lambda path: None,
    "folder": Path.mkdir,
    "empty": Path.touch,
    "text": write_text,
    "noise": write_noise,
    "truncated-mp4": write_truncated,
    "sound": write_sound,
    "cover-only": lambda path: write_sound(path, cover=True),
    "no-frames": write_no_frames,
    "image": write_image,
}


@pytest.mark.parametrize("kind", BAD_INPUTS)
def test_bad_inputs_are_refused_in_one_line(video: Video, tmp_path: Path, kind: str) -> None:
    BAD_INPUTS[kind](tmp_path / "in.mp4")  # type: ignore[operator]
    before = sorted(tmp_path.rglob("*"))
    outcome = video("in.mp4", "-o", "out.mkv")
    assert outcome.code == 2
    lines = [line for line in outcome.err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert "in.mp4" in lines[0]
    assert "Traceback" not in outcome.err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (["-o", "out.txt"], ".mkv"),
        (["-o", "in.mkv"], "input"),
        (["-o", "there.mkv"], "already exists"),
        (["-o", "none/there/out.mkv", "--codec", "x263"], "x264"),
        (["-o", "out.mkv", "--encoder-opt", "crff=3"], "crf"),
        (["-o", "out.mkv", "--preset", "foo"], "128x96"),
        (["-o", "out.mkv", "--pix-fmt", "yuv420q"], "yuv420p"),
        (["-o", "out.webm", "--codec", "x264"], "webm"),
        (["-o", "out.mkv", "-s", "64", "--width", "3"], "exclude"),
        (["-o", "out.mkv", "--width", "30000", "--height", "20000"], "30000x20000"),
        (["-o", "out.mkv", "--start", "99"], "1.2"),
        (["-o", "out.mkv", "--device", "cpu,cuda:0"], "one kind"),
        (["-o", "out.mp4"], "stream 3"),
    ],
)
def test_what_cannot_be_done_is_refused_first(
    video: Video, tmp_path: Path, arguments: list[str], fact: str
) -> None:
    make_rich(tmp_path / "in.mkv", tmp_path)
    Path("there.mkv").write_bytes(b"mine")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    outcome = video("in.mkv", *arguments)
    assert outcome.code == 2
    assert fact in outcome.err
    assert "Traceback" not in outcome.err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_film_from_the_command_line(video: Video, tmp_path: Path) -> None:
    make_rich(tmp_path / "in.mkv", tmp_path)
    plan = video("in.mkv", "-o", "out.mp4", "--drop-incompatible", "--dry-run", "--json")
    plain = json.loads(plan.out)
    assert plan.code == 0
    assert (plain["frames"], plain["out_width"], plain["encoder"]) == (30, 128, "libx264")
    assert [one["action"].partition(",")[0] for one in plain["streams"]].count("dropped") == 3
    assert plain["estimated_seconds"] >= 0
    assert not Path("out.mp4").exists()
    shown = video("in.mkv", "-o", "out.mkv", "--dry-run")
    assert "30 frames" in shown.out.decode()
    outcome = video("in.mkv", "-o", "out.mkv", "--json", "--preset", "ultrafast")
    report = json.loads(outcome.out)
    assert outcome.code == report["exit_code"] == 0
    assert report["frames_in"] == report["frames_out"] == 30
    assert report["streams"][0]["action"] == "copied"
    written = json.loads(Path("out.mkv.report.json").read_text())
    assert written["frames_out"] == 30
    again = video("in.mkv", "-o", "out.mkv", "--overwrite", "--preset", "ultrafast")
    assert "6 streams copied" in again.err


def test_without_pyav_the_command_says_what_to_install(
    video: Video, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_clip(tmp_path / "in.mp4", moving(2))
    monkeypatch.setitem(sys.modules, "av", types.SimpleNamespace(__version__="17.1.0"))
    outcome = video("in.mp4", "-o", "out.mp4")
    assert outcome.code == 2
    assert "18.0" in outcome.err
    monkeypatch.setitem(sys.modules, "av", None)
    outcome = video("in.mp4", "-o", "out.mp4")
    assert outcome.code == 2
    assert "pip install 'realesr-cli[video]'" in outcome.err
    assert not Path("out.mp4").exists()


def damage(path: Path, count: int = 60, seed: int = 0) -> None:
    """Change bytes in the last third of a file, in one place."""
    data = bytearray(path.read_bytes())
    start = len(data) * 2 // 3
    noise = np.random.default_rng(seed).bytes(count)
    data[start : start + count] = noise
    path.write_bytes(data)


def test_damaged_frames_are_replaced_and_counted(video: Video, tmp_path: Path) -> None:
    options = (("preset", "ultrafast"), ("g", "8"), ("bf", "0"))
    source = make_clip(tmp_path / "in.mkv", moving(150), Clip(options=options))
    whole = len(packets(source))
    damage(source)
    count = len(open_film(source, VideoSettings()).index)
    with av.open(str(source)) as container:
        shown = len({frame.pts for frame in decode(container, container.streams.video[0])})
    outcome = video(
        "in.mkv", "-o", "out.mkv", "--preset", "ultrafast", "--json", "--chunk-seconds", "1"
    )
    report = json.loads(outcome.out)
    assert whole - 8 <= count <= whole
    assert report["frames_out"] == report["frames_in"] == count == len(decoded(Path("out.mkv")))
    assert report["concealed"] == count - shown
    assert report["concealed"] + report["corrupt"] > 0
    assert outcome.code == report["exit_code"] == 4
    if report["concealed"]:
        assert video("in.mkv", "-o", "strict.mkv", "--strict").code == 1
        assert not Path("strict.mkv").exists()


def test_a_file_that_ends_early_is_reported(video: Video, tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mkv", moving(120), Clip(aac=70))
    data = source.read_bytes()
    source.write_bytes(data[: len(data) // 2])
    outcome = video("in.mkv", "-o", "out.mkv", "--preset", "ultrafast", "--json")
    report = json.loads(outcome.out)
    assert outcome.code == 4
    assert report["truncated"]
    assert 0 < report["frames_out"] == report["frames_in"] < 120


def test_frames_that_change_their_size_are_refused(video: Video, tmp_path: Path) -> None:
    parts = [
        make_clip(tmp_path / f"{size}.ts", moving(10, size, 48), Clip()).read_bytes()
        for size in (64, 96)
    ]
    (tmp_path / "in.ts").write_bytes(parts[0] + parts[1])
    outcome = video("in.ts", "-o", "out.mkv")
    assert outcome.code == 2
    assert re.search(r"64x48.*96x48", outcome.err)
    assert not Path("out.mkv").exists()
    assert not Path("out.mkv.realesr-job").exists()


def test_missing_timestamps_are_repaired(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.h264", moving(30))
    report = run(source, tmp_path / "b.mkv")
    assert report.frames_out == 30
    assert any("order" in note for note in report.notes)
    shown = [frame.pts for frame in decoded(tmp_path / "b.mkv")]
    assert {b - a for a, b in itertools.pairwise(shown)} == {40}


def test_no_frame_is_lost_when_memory_runs_out(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mkv", moving(6), Clip("ffv1", ()))
    run(source, tmp_path / "whole.mkv", codec="ffv1")
    upscaler = nearest()
    (placed,) = upscaler._networks
    forwards: Any = placed.guard._forwards
    fast = forwards.fast

    def poor(x: Any) -> Any:
        if x.shape[2] * x.shape[3] > 2000:
            raise RuntimeError("CUDA out of memory")
        return fast(x)

    import dataclasses

    placed.guard._forwards = dataclasses.replace(forwards, fast=poor)
    with pytest.warns(RealesrWarning, match="memory"):
        report = run(source, tmp_path / "b.mkv", upscaler, codec="ffv1")
    assert report.frames_out == report.computed == 6
    assert packets(tmp_path / "b.mkv") == packets(tmp_path / "whole.mkv")


def test_no_program_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    source = make_clip(tmp_path / "a.mp4", moving(3), Clip(aac=5))
    assert run(source, tmp_path / "b.mp4").frames_out == 3
