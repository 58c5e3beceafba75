"""Atomic writes: old contents or new, never a part; stale temporary files go, living ones stay."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from realesr_cli import atomic
from realesr_cli.atomic import atomic_path


def test_whole_file_replaces_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    with atomic_path(path) as part:
        part.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.json"]


def test_failed_write_leaves_the_old_file_and_no_part(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")

    def fail() -> None:
        with atomic_path(path) as part:
            part.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_names_of_part_files_cannot_be_foreseen(tmp_path: Path):
    names = set()
    for _ in range(3):
        with atomic.atomic_write(tmp_path / "a.png") as file:
            names |= {p.name for p in tmp_path.iterdir() if p.suffix == ".part"}
            file.write(b"x")
    assert len(names) == 3


KILLED = """
import os, signal, sys
from pathlib import Path
from realesr_cli.atomic import atomic_write
with atomic_write(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path):
    target = tmp_path / "a.png"
    target.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(target)], check=False)
    assert done.returncode != 0
    assert target.read_bytes() == b"old"
    left = [p for p in tmp_path.iterdir() if p.suffix == ".part"]
    assert len(left) == 1
    with atomic.atomic_write(tmp_path / "b.png") as file:
        file.write(b"being written")
        assert atomic.remove_stale_files(tmp_path) == left
    assert {p.name for p in tmp_path.iterdir()} == {"a.png", "b.png"}
    assert (tmp_path / "b.png").read_bytes() == b"being written"


def test_without_locks_only_old_part_files_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr("fcntl.flock", refuse)
    old, new = (tmp_path / f".realesr-{i}.part" for i in range(2))
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    assert atomic.remove_stale_files(tmp_path) == [old]
    assert new.exists()


def test_part_files_that_cannot_be_removed_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    part = tmp_path / ".realesr-0.part"
    part.touch()

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "unlink", refuse)
    assert atomic.remove_stale_files(tmp_path) == []


def test_permissions_of_a_replaced_file_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.touch(mode=0o600)
    with atomic.atomic_write(path) as file:
        file.write(b"new")
    assert path.stat().st_mode & 0o777 == 0o600


def test_files_written_by_name_get_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with atomic_path(tmp_path / "a.safetensors") as part:
        part.unlink()
        part.touch(mode=0o600)
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_file_removed_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, calls = atomic.lock_file, []

    def late(file: Any) -> None:
        if not calls:
            Path(file.name).unlink()
        calls.append(file.name)
        usual(file)

    monkeypatch.setattr(atomic, "lock_file", late)
    with atomic.atomic_write(tmp_path / "a.png") as file:
        file.write(b"new")
    assert len(calls) == 2
    assert (tmp_path / "a.png").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.png"]


def test_writers_and_cleaners_in_one_folder_do_not_meet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is about locks; beside other writers each of 300 waits for the disk may take a second.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    stop = threading.Event()

    def clean() -> None:
        while not stop.is_set():
            atomic.remove_stale_files(tmp_path)

    cleaner = subprocess.Popen(
        [sys.executable, "-c", CLEANER, str(tmp_path)], stdin=subprocess.PIPE
    )
    thread = threading.Thread(target=clean)
    thread.start()
    try:
        for number in range(300):
            with atomic.atomic_write(tmp_path / f"{number % 7}.png") as file:
                file.write(b"x")
    finally:
        stop.set()
        thread.join()
        cleaner.communicate(b"")
    assert sorted(os.listdir(tmp_path)) == [f"{number}.png" for number in range(7)]


CLEANER = """
import sys, threading
from pathlib import Path
from realesr_cli.atomic import remove_stale_files
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set())).start()
while not ended.is_set():
    remove_stale_files(Path(sys.argv[1]))
"""
