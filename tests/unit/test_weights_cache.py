"""Hashes are remembered only while they hold, locks exclude."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from realesr_cli.atomic import PREFIX, SUFFIX
from realesr_cli.errors import DownloadError, RealesrWarning
from realesr_cli.weights import cache, registry
from realesr_cli.weights.model_files import save_pth, save_safetensors


def test_sha256_with_progress(tmp_path: Path) -> None:
    path = tmp_path / "f"
    data = b"abc" * 700_000
    path.write_bytes(data)
    seen: list[tuple[int, int]] = []
    assert cache.sha256_of(path, lambda d, t: seen.append((d, t))) == (
        hashlib.sha256(data).hexdigest()
    )
    assert seen[-1] == (len(data), len(data))
    assert len(seen) == 3


def test_remembered_hash_ends_with_any_change(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one")
    first = cache.current_hash(path)
    assert cache.remembered_hash(path) == first == cache.current_hash(path)
    path.write_bytes(b"two")
    os.utime(path, ns=(5, 5))
    assert cache.remembered_hash(path) is None
    assert cache.recorded_hash(path) == first
    assert cache.current_hash(path) != first


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"[1]", b'{"bytes": 1}', b"[" * 100_000, b"\xff\xfe",
        b'{"bytes": Infinity, "mtime_ns": 1, "sha256": "a"}', b'{"bytes": {}, "mtime_ns": []}',
        b'{"bytes": ' + b"9" * 5000,
    ],
)  # fmt: skip
def test_damaged_stamp_is_no_stamp(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one")
    (tmp_path / "f.checked").write_bytes(text)
    assert cache.remembered_hash(path) is None
    assert cache.current_hash(path) == hashlib.sha256(b"one").hexdigest()


def test_forget_removes_file_and_stamp(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one")
    cache.current_hash(path)
    cache.forget(path)
    assert os.listdir(tmp_path) == []


def test_lock_lets_one_in_at_a_time(tmp_path: Path) -> None:
    inside, most = 0, 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal inside, most
        for _ in range(3):
            with cache.hold_lock(tmp_path / "l"):
                with guard:
                    inside += 1
                    most = max(most, inside)
                with guard:
                    inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_long_wait_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_WARN_AFTER", 0.01)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with cache.hold_lock(tmp_path / "l"):
            held.set()
            done.wait(10)

    other = threading.Thread(target=hold)
    other.start()
    held.wait(10)
    threading.Timer(0.2, done.set).start()
    with (
        pytest.warns(RealesrWarning, match="waiting for another process") as caught,
        cache.hold_lock(tmp_path / "l"),
    ):
        assert done.is_set()
    other.join()
    assert len(caught) == 1


def test_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: object, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with (
        pytest.raises(DownloadError, match="cannot be locked"),
        cache.hold_lock(tmp_path / "l"),
    ):
        pass


def _write_stamp(path: Path) -> None:
    path.write_bytes(b"one")
    cache.current_hash(path)


@pytest.mark.parametrize(
    "write",
    [
        _write_stamp,
        lambda path: save_safetensors(path, {"a": torch.zeros(1)}, {}),
        lambda path: save_pth(path, {"params": {"a": torch.zeros(1)}}),
    ],
)
def test_what_a_killed_process_left_beside_a_model_is_removed(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    stale = tmp_path / f"{PREFIX}0123456789abcdef{SUFFIX}"
    stale.write_bytes(b"half")
    write(tmp_path / "f")
    assert not stale.exists()


def test_what_a_killed_process_left_beside_the_list_is_removed() -> None:
    registry.home().mkdir(parents=True, exist_ok=True)
    stale = registry.home() / f"{PREFIX}0123456789abcdef{SUFFIX}"
    stale.write_bytes(b"half")
    registry.remove_imported("nothing")
    assert not stale.exists()
