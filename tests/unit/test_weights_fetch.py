"""A model's file is used only when it is the right one, and an error says what to do."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from weights_server import FileServer, status, whole

from realesr_cli.cli.advice import message_with_advice
from realesr_cli.errors import (
    ChecksumMismatchError,
    DownloadError,
    ModelUnavailableError,
    RealesrWarning,
)
from realesr_cli.weights import cache, fetch, registry
from realesr_cli.weights.download import RetryPolicy
from realesr_cli.weights.fetch import ensure, is_offline
from realesr_cli.weights.registry import RegistryEntry

DATA = bytes(range(256)) * 800
HASTY = RetryPolicy(attempts=2, read_timeout=5, sleep=lambda seconds: None)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with FileServer() as running:
        yield running


def entry_for(*urls: str, data: bytes = DATA) -> RegistryEntry:
    return RegistryEntry(
        name="tiny",
        file="tiny.pth",
        urls=urls,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def get(
    entry: RegistryEntry, *, allow_unverified: bool = False, offline: bool | None = None
) -> Path:
    return ensure(entry, retry=HASTY, allow_unverified=allow_unverified, offline=offline)


def test_fetched_once_then_from_the_cache(server: FileServer) -> None:
    entry = entry_for(server.serve("/tiny.pth", whole(DATA)))
    path = get(entry)
    assert path == registry.weights_dir() / "tiny.pth"
    assert path.read_bytes() == DATA
    assert get(entry, offline=True) == path
    assert len(server.requests) == 1
    assert not list(path.parent.glob("*.part*"))


def test_second_address_after_404(server: FileServer) -> None:
    entry = entry_for(server.serve("/gone", status(404)), server.serve("/f", whole(DATA)))
    assert get(entry).read_bytes() == DATA


def test_second_address_after_a_wrong_file(server: FileServer) -> None:
    entry = entry_for(server.serve("/bad", whole(DATA[::-1])), server.serve("/f", whole(DATA)))
    assert get(entry).read_bytes() == DATA


def test_wrong_hash_everywhere_keeps_nothing(server: FileServer) -> None:
    entry = entry_for(server.serve("/bad", whole(DATA[::-1])))
    with pytest.raises(ChecksumMismatchError, match="no address has the right file"):
        get(entry)
    assert [p.name for p in registry.weights_dir().iterdir()] == ["tiny.pth.lock"]


def test_foreign_part_file_is_found_out_and_fetched_anew(server: FileServer) -> None:
    entry = entry_for(server.serve("/f", whole(DATA)))
    registry.weights_dir().mkdir(parents=True)
    (registry.weights_dir() / "tiny.pth.part").write_bytes(b"z" * 1000)
    assert get(entry).read_bytes() == DATA
    assert server.ranges() == ["bytes=1000-", None]


def test_every_address_failed_names_the_ways_out(server: FileServer) -> None:
    entry = entry_for(server.serve("/a", status(404)), server.serve("/b", status(500)))
    with pytest.raises(ModelUnavailableError) as caught:
        get(entry)
    text = str(caught.value)
    assert "\n" not in text
    assert "HTTP 404" in text
    assert "HTTP 500" in text
    shown = message_with_advice(caught.value)
    for way in ("models pull tiny", "models import tiny.pth", "models list", "--model FILE"):
        assert way in shown


def test_offline_does_not_touch_the_network(
    server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = entry_for(server.serve("/f", whole(DATA)))
    with pytest.raises(ModelUnavailableError, match="offline"):
        get(entry, offline=True)
    monkeypatch.setenv("REALESR_OFFLINE", "1")
    with pytest.raises(ModelUnavailableError, match="tiny"):
        get(entry)
    assert server.requests == []
    assert get(entry, offline=False).read_bytes() == DATA


@pytest.mark.parametrize(
    ("value", "expected"), [("", False), ("0", False), ("No", False), ("1", True), ("true", True)]
)
def test_offline_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, value: str, expected: bool
) -> None:
    monkeypatch.setenv("REALESR_OFFLINE", value)
    assert is_offline() is expected


def test_no_public_address(server: FileServer) -> None:
    with pytest.raises(ModelUnavailableError, match="no public address"):
        get(entry_for())


def test_damaged_cached_file_is_replaced_with_a_warning(server: FileServer) -> None:
    entry = entry_for(server.serve("/f", whole(DATA)))
    path = get(entry)
    path.write_bytes(DATA[:-1])
    with pytest.warns(RealesrWarning, match="size mismatch"):
        assert get(entry).read_bytes() == DATA


def test_changed_byte_is_found_by_the_hash(server: FileServer) -> None:
    entry = entry_for(server.serve("/f", whole(DATA)))
    path = get(entry)
    path.write_bytes(b"?" + DATA[1:])
    os.utime(path, ns=(1, 1))
    with pytest.raises(ChecksumMismatchError, match="SHA-256"):
        get(entry, offline=True)
    assert "SHA-256" in fetch.find_problem(entry, path)


def test_hash_is_computed_once(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = entry_for(server.serve("/f", whole(DATA)))
    path = get(entry)
    monkeypatch.setattr(cache, "sha256_of", lambda path, progress=None: pytest.fail("hashed again"))
    assert get(entry) == path


def test_file_put_there_by_hand_is_checked_then_remembered() -> None:
    entry = entry_for()
    registry.weights_dir().mkdir(parents=True)
    path = registry.weights_dir() / "tiny.pth"
    path.write_bytes(DATA)
    assert cache.remembered_hash(path) is None
    assert get(entry, offline=True) == path
    assert cache.remembered_hash(path) == entry.sha256


def test_unknown_hash_needs_consent_and_is_then_remembered(server: FileServer) -> None:
    entry = replace(entry_for(server.serve("/f", whole(DATA))), sha256=None, bytes=None)
    with pytest.raises(ChecksumMismatchError, match="SHA-256 is not known"):
        get(entry)
    path = get(entry, allow_unverified=True)
    assert path.read_bytes() == DATA
    assert get(entry) == path
    path.write_bytes(b"other")
    with pytest.raises(ChecksumMismatchError, match="SHA-256"):
        get(entry, offline=True)


def test_unhashed_file_put_there_by_hand_needs_consent() -> None:
    entry = replace(entry_for(), sha256=None, bytes=None)
    registry.weights_dir().mkdir(parents=True)
    (registry.weights_dir() / "tiny.pth").write_bytes(DATA)
    with pytest.raises(ChecksumMismatchError, match="SHA-256 is not known"):
        get(entry, offline=True)
    assert get(entry, offline=True, allow_unverified=True).read_bytes() == DATA


def test_another_process_fetched_it_meanwhile(
    server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = entry_for(server.serve("/f", whole(DATA)))
    path = get(entry)
    # This call saw an empty cache; when it gets the lock, the file is there.
    monkeypatch.setattr(registry, "cached", lambda entry: None)
    assert get(entry) == path
    assert len(server.requests) == 1


def test_cache_that_cannot_be_made(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("REALESR_HOME", str(tmp_path / "file"))
    with pytest.raises(DownloadError, match="Not a directory") as caught:
        get(entry_for(server.serve("/f", whole(DATA))))
    assert "REALESR_HOME" in message_with_advice(caught.value)


def test_bundled_file_needs_no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "inside.pth").write_bytes(DATA)
    monkeypatch.setattr(registry, "_PACKAGE", tmp_path)
    entry = replace(entry_for(), bundled="inside.pth")
    assert get(entry, offline=True) == tmp_path / "inside.pth"
    assert registry.bundled([entry_for(), entry]) == entry
    assert registry.bundled([entry_for()]) is None
    assert [p.name for p in tmp_path.iterdir()] == ["inside.pth"]  # no record of the check
    (tmp_path / "inside.pth").write_bytes(DATA[:-1])
    with pytest.raises(ChecksumMismatchError, match="install realesr-cli again"):
        get(entry, offline=True)


# --- no connection ------------------------------------------------------------------------------

QUICK = replace(fetch.QUICK_RETRY, sleep=lambda seconds: None)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "QUICK_RETRY", QUICK)


def test_a_failed_connection_is_remembered_for_minutes(
    server: FileServer, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = entry_for("http://127.0.0.1:1/f")
    with pytest.raises(ModelUnavailableError, match="no connection"):
        ensure(gone, retry=QUICK)
    entry = entry_for(server.serve("/f", whole(DATA)))
    with pytest.raises(ModelUnavailableError, match="not tried again"):
        ensure(entry, retry=QUICK)
    assert server.requests == []
    now = time.time()
    monkeypatch.setattr("realesr_cli.weights.fetch.time.time", lambda: now + 301)
    assert ensure(entry, retry=QUICK).read_bytes() == DATA


def test_a_model_that_is_named_is_always_tried(server: FileServer, quick: None) -> None:
    with pytest.raises(ModelUnavailableError):
        ensure(entry_for("http://127.0.0.1:1/f"), retry=QUICK)
    entry = entry_for(server.serve("/f", whole(DATA)))
    path = get(entry)
    path.unlink()
    ensure(entry, retry=QUICK)  # a connection that worked ends the pause
    assert len(server.requests) == 2


def test_a_server_that_refuses_is_no_failed_connection(server: FileServer, quick: None) -> None:
    with pytest.raises(ModelUnavailableError):
        ensure(entry_for(server.serve("/a", status(404))), retry=QUICK)
    ensure(entry_for(server.serve("/f", whole(DATA))), retry=QUICK)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"time": "x"}', '{"time": 1e999}', "[" * 9999])
def test_a_damaged_record_of_a_failure_is_none(server: FileServer, quick: None, text: str) -> None:
    registry.home().mkdir(parents=True, exist_ok=True)
    (registry.home() / "no-connection.json").write_text(text)
    ensure(entry_for(server.serve("/f", whole(DATA))), retry=QUICK)


def test_stale_files_of_killed_processes_are_removed(server: FileServer) -> None:
    registry.weights_dir().mkdir(parents=True)
    stale = registry.weights_dir() / ".realesr-0123456789abcdef.part"
    stale.write_bytes(b"x")
    get(entry_for(server.serve("/f", whole(DATA))))
    assert not stale.exists()
