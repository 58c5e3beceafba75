"""Interrupted videos: every point at which a run can die, and every change of its job folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from video_samples import make_clip, moving, nearest, packets, run, times

from realesr_cli.errors import (
    CancelledError,
    JobChangedError,
    VideoError,
    WriteError,
)
from realesr_cli.video import journal, mux, upscale_video
from realesr_cli.video.settings import VideoSettings

FRAMES = 28
FAST = {"preset": "ultrafast"}


class Death(BaseException):
    """Ends a run where a signal would."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("film") / "a.mp4", moving(FRAMES))


@pytest.fixture(scope="module")
def expected(source: Path) -> list[tuple[Any, ...]]:
    """The packets of a run that nothing disturbs."""
    run(source, source.with_name("whole.mp4"), **FAST)
    return packets(source.with_name("whole.mp4"))


@contextmanager
def dying(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int) -> Iterator[None]:
    """Die in the n-th call of a function, before it does anything."""
    usual, count = getattr(owner, name), 0

    def counted(*args: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        if count == call:
            raise Death
        return usual(*args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, counted)
        try:
            yield
        except Death:
            return
    pytest.fail("the function was not called so often")


def job_of(target: Path) -> Path:
    return target.with_name(target.name + ".realesr-job")


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (journal.VideoJob, "begin", 1),
        (journal.VideoJob, "begin", 2),
        (journal.VideoJob, "commit", 1),
        (journal.VideoJob, "commit", 3),
        (journal.VideoJob, "_append", 2),  # between the name of a chunk and its entry
        (journal.VideoJob, "_append", 4),
        (journal, "sha256_of", 2),
        (upscale_video, "write_film", 1),
        (mux.heapq, "merge", 1),
        (upscale_video.VideoJob, "commit_result", 1),
        (upscale_video, "write_report", 1),
        (upscale_video.VideoJob, "remove", 1),
    ],
)
def test_a_run_that_dies_is_finished_with_the_same_packets(
    source: Path, expected: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    owner: Any, name: str, call: int,
) -> None:  # fmt: skip
    target = tmp_path / "b.mp4"
    with dying(monkeypatch, owner, name, call):
        run(source, target, **FAST)
    report = run(source, target, **FAST)
    assert packets(target) == expected
    assert report.frames_out == FRAMES
    assert report.chunks_recomputed <= 1
    assert not job_of(target).exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.mp4", "b.mp4.report.json"]


def interrupt(source: Path, target: Path, **settings: Any) -> None:
    """Stop a run in its third chunk."""
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return (len(list(job_of(target).glob("*.chunk"))) >= 2) and asked > 1

    chosen = VideoSettings(**{"chunk_seconds": 0.5, **FAST, **settings})
    with pytest.raises(CancelledError):
        upscale_video.upscale_video(
            source, target, model=nearest(), settings=chosen, stop_requested=stop
        )
    assert not target.exists()
    assert len(list(job_of(target).glob("*.chunk"))) == 2


def delete(job: Path) -> None:
    (job / "000000.chunk").unlink()


def truncate(job: Path) -> None:
    os.truncate(job / "000001.chunk", 100)


def flip(job: Path) -> None:
    data = bytearray((job / "000000.chunk").read_bytes())
    data[len(data) // 2] ^= 255
    (job / "000000.chunk").write_bytes(data)


def cut_last_line(job: Path) -> None:
    path = job / "journal.jsonl"
    path.write_bytes(path.read_bytes().rstrip()[:-4])


def cut_last_chunk(job: Path) -> None:
    path = job / "journal.jsonl"
    path.write_bytes(path.read_bytes().rstrip()[:-30])


def lose_journal(job: Path) -> None:
    (job / "journal.jsonl").unlink()


def add_garbage(job: Path) -> None:
    with (job / "journal.jsonl").open("ab") as file:
        file.write(b'\x00\xff{"chunk": 7, "sha')


@pytest.mark.parametrize(
    ("attack", "kept"),
    [
        (delete, 1),
        (truncate, 1),
        (flip, 1),
        (cut_last_line, 2),
        (cut_last_chunk, 1),
        (lose_journal, 0),
        (add_garbage, 2),
    ],
)
def test_damaged_jobs_are_repaired(
    source: Path, expected: list[Any], tmp_path: Path, attack: Any, kept: int
) -> None:
    target = tmp_path / "b.mp4"
    interrupt(source, target)
    attack(job_of(target))
    report = run(source, target, **FAST)
    assert report.chunks_resumed == kept
    assert packets(target) == expected


def test_another_setting_or_source_is_refused(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.mp4"
    interrupt(source, target)
    before = sorted(path.read_bytes() for path in job_of(target).iterdir())
    with pytest.raises(JobChangedError, match="crf") as raised:
        run(source, target, crf=30, **FAST)
    assert raised.value.exit_code == 3
    with pytest.raises(JobChangedError, match="upscale"):
        run(source, target, upscaler=nearest(4), **FAST)
    changed = make_clip(tmp_path / "other.mp4", moving(FRAMES, seed=1))
    with pytest.raises(JobChangedError, match="source"):
        run(changed, target, **FAST)
    assert sorted(path.read_bytes() for path in job_of(target).iterdir()) == before
    report = run(changed, target, resume=False, **FAST)
    assert report.chunks_resumed == 0
    assert report.frames_out == FRAMES


def test_one_process_at_a_time(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.mp4"
    interrupt(source, target)
    held = (job_of(target) / "lock").open("ab")
    fcntl = pytest.importorskip("fcntl")
    fcntl.flock(held, fcntl.LOCK_EX)
    with held, pytest.raises(VideoError, match="another process"):
        run(source, target, **FAST)
    assert run(source, target, **FAST).frames_out == FRAMES


def test_a_folder_that_is_no_job_is_left_alone(source: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").write_text("dear")
    with pytest.raises(VideoError, match="mine"):
        run(source, tmp_path / "b.mp4", job_dir=mine, **FAST)
    assert [path.name for path in mine.iterdir()] == ["letter.txt"]
    assert not (tmp_path / "b.mp4").exists()


def test_a_full_disk_leaves_a_job_that_continues(
    source: Path, expected: list[Any], tmp_path: Path
) -> None:
    resource = pytest.importorskip("resource")
    target = tmp_path / "b.mp4"
    sizes = run(source, target, keep_job=True, **FAST)
    largest = max(path.stat().st_size for path in job_of(target).glob("*.chunk"))
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (largest // 2, sizes.bytes - 100):
        for path in (target, *job_of(target).glob("*")):
            path.unlink()
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
        try:
            with pytest.raises(WriteError):
                run(source, target, **FAST)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
        assert not target.exists()
        run(source, target, **FAST)
        assert packets(target) == expected
        job_of(target).mkdir()
        target.touch()


def test_a_part_of_a_film(source: Path, tmp_path: Path) -> None:
    report = run(source, tmp_path / "b.mp4", start=0.4, end=0.8, **FAST)
    assert report.frames_out == 10
    assert times(tmp_path / "b.mp4") == times(source)[:10]
    assert run(source, tmp_path / "c.mp4", frames=7, **FAST).frames_out == 7
