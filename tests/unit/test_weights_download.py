"""Downloads survive cut connections and servers that lie, and keep what they have."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from weights_server import FileServer, late, raw, send, status, whole, without_range

from realesr_cli.errors import ConfigError, DownloadError
from realesr_cli.weights.download import (
    AddressError,
    RetryPolicy,
    UnreachableError,
    discard,
    download,
)

DATA = bytes(range(256)) * 1200
HALF = 2 * 65536  # whole blocks, so that none is lost when a connection ends
HASTY = RetryPolicy(attempts=3, read_timeout=5, sleep=lambda seconds: None)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with FileServer() as running:
        yield running


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "model.pth.part"


def test_whole_file_with_progress(server: FileServer, part: Path) -> None:
    seen: list[tuple[int, int]] = []
    url = server.serve("/f", whole(DATA))
    download(url, part, len(DATA), retry=HASTY, progress=lambda d, t: seen.append((d, t)))
    assert part.read_bytes() == DATA
    assert seen[-1] == (len(DATA), len(DATA))
    assert [d for d, _ in seen] == sorted(d for d, _ in seen)


def test_cut_connection_is_resumed_where_it_ended(server: FileServer, part: Path) -> None:
    url = server.serve("/f", whole(DATA, cut=HALF), whole(DATA))
    download(url, part, len(DATA), retry=HASTY)
    assert part.read_bytes() == DATA
    assert server.ranges() == [None, f"bytes={HALF}-"]


def test_resume_after_an_earlier_process(server: FileServer, part: Path) -> None:
    part.write_bytes(DATA[:1000])
    download(server.serve("/f", whole(DATA)), part, len(DATA), retry=HASTY)
    assert part.read_bytes() == DATA
    assert server.ranges() == ["bytes=1000-"]


def test_changed_file_on_the_server_starts_anew(server: FileServer, part: Path) -> None:
    other = DATA[::-1]
    url = server.serve("/f", whole(DATA, cut=HALF), whole(other, etag='"v2"'))
    download(url, part, len(DATA), retry=HASTY)
    assert part.read_bytes() == other


def test_server_without_range_restarts(server: FileServer, part: Path) -> None:
    part.write_bytes(b"x" * 1000)
    download(server.serve("/f", without_range(DATA)), part, len(DATA), retry=HASTY)
    assert part.read_bytes() == DATA


def test_wrong_content_range_is_not_appended(server: FileServer, part: Path) -> None:
    part.write_bytes(DATA[:1000])
    wrong = raw(206, {"Content-Range": f"bytes 0-9/{len(DATA)}", "Content-Length": "10"}, DATA[:10])
    download(server.serve("/f", wrong, whole(DATA)), part, len(DATA), retry=HASTY)
    assert part.read_bytes() == DATA
    assert server.ranges() == ["bytes=1000-", None]


def test_range_of_a_file_of_other_size_restarts(server: FileServer, part: Path) -> None:
    part.write_bytes(DATA[:1000])
    wrong = raw(206, {"Content-Range": "bytes 1000-1009/1010", "Content-Length": "10"}, b"y" * 10)
    download(server.serve("/f", wrong, whole(DATA)), part, len(DATA), retry=HASTY)
    assert part.read_bytes() == DATA


def test_416_restarts(server: FileServer, part: Path) -> None:
    part.write_bytes(b"y" * 500)
    url = server.serve("/f", status(416, {"Content-Range": "bytes */100"}), whole(DATA))
    download(url, part, len(DATA), retry=HASTY)
    assert part.read_bytes() == DATA


def test_416_of_a_whole_file_of_unknown_size_is_done(server: FileServer, part: Path) -> None:
    part.write_bytes(DATA)
    url = server.serve("/f", status(416, {"Content-Range": f"bytes */{len(DATA)}"}))
    download(url, part, None, retry=HASTY)
    assert part.read_bytes() == DATA
    assert len(server.requests) == 1


def test_whole_part_needs_no_request_and_longer_one_restarts(
    server: FileServer, part: Path
) -> None:
    url = server.serve("/f", whole(DATA))
    part.write_bytes(DATA)
    download(url, part, len(DATA), retry=HASTY)
    assert server.requests == []
    part.write_bytes(DATA + b"more")
    download(url, part, len(DATA), retry=HASTY)
    assert part.read_bytes() == DATA


def test_refusal_is_not_retried(server: FileServer, part: Path) -> None:
    url = server.serve("/f", status(404))
    with pytest.raises(AddressError, match="404"):
        download(url, part, len(DATA), retry=HASTY)
    assert len(server.requests) == 1


def test_busy_server_is_asked_again_after_the_time_it_names(server: FileServer, part: Path) -> None:
    waits: list[float] = []
    network = RetryPolicy(attempts=4, sleep=waits.append, backoff=1, longest_wait=3)
    url = server.serve(
        "/f", status(503), status(503), status(429, {"Retry-After": "100"}), whole(DATA)
    )
    download(url, part, len(DATA), retry=network)
    assert part.read_bytes() == DATA
    assert waits == [0, 2, 3]


def test_gives_up_after_the_attempts_without_progress(server: FileServer, part: Path) -> None:
    url = server.serve("/f", status(500))
    with pytest.raises(AddressError, match=r"500 \(3 tries\)"):
        download(url, part, len(DATA), retry=HASTY)
    assert len(server.requests) == 3


def test_attempts_that_bring_much_do_not_count(server: FileServer, part: Path) -> None:
    data = DATA * 20
    step = 3 << 19
    cuts = [whole(data, cut=step * n) for n in (1, 2, 3)]
    download(
        server.serve("/f", *cuts, whole(data)),
        part,
        len(data),
        retry=RetryPolicy(attempts=2, sleep=lambda seconds: None),
    )
    assert part.read_bytes() == data


def test_truncated_without_length_is_noticed(server: FileServer, part: Path) -> None:
    url = server.serve("/f", raw(200, {}, DATA[:HALF]), whole(DATA))
    download(url, part, len(DATA), retry=HASTY)
    assert part.read_bytes() == DATA


def test_no_connection_is_an_address_that_failed(part: Path, server: FileServer) -> None:
    with pytest.raises(AddressError, match="no connection"):
        download("http://127.0.0.1:1/f", part, 10, retry=HASTY)


def test_what_is_no_address_is_not_tried_again(part: Path) -> None:
    with pytest.raises(AddressError, match="not an address"):
        download("gopher://127.0.0.1/f", part, 10, retry=HASTY)


def test_slow_start_is_tried_again(server: FileServer, part: Path) -> None:
    network = RetryPolicy(attempts=2, read_timeout=0.1, sleep=lambda seconds: None)
    download(
        server.serve("/f", late(0.4, whole(DATA)), whole(DATA)), part, len(DATA), retry=network
    )
    assert part.read_bytes() == DATA
    assert len(server.requests) == 2


@pytest.mark.parametrize("length", ["9" * 30, "-5", "abc", ""])
def test_nonsense_content_length_is_not_believed(
    server: FileServer, part: Path, length: str
) -> None:
    url = server.serve("/f", raw(200, {"Content-Length": length}, DATA[:100]), whole(DATA))
    download(url, part, len(DATA), retry=HASTY)
    assert part.read_bytes() == DATA


def test_file_of_another_size_is_refused_before_it_is_read(server: FileServer, part: Path) -> None:
    url = server.serve("/f", whole(DATA))
    with pytest.raises(AddressError, match=f"expected 100 bytes.*{len(DATA)}"):
        download(url, part, 100, retry=HASTY)
    assert not part.exists()


def test_endless_file_is_stopped_at_the_size(server: FileServer, part: Path) -> None:
    with pytest.raises(AddressError, match="more than 1000 bytes"):
        download(server.serve("/f", raw(200, {}, DATA)), part, 1000, retry=HASTY)
    assert part.stat().st_size == 0


def test_giant_file_of_unknown_size_is_refused(server: FileServer, part: Path) -> None:
    url = server.serve("/f", raw(200, {"Content-Length": str(10**15)}, b"x"))
    with pytest.raises(AddressError, match="more than any model"):
        download(url, part, None, retry=HASTY)


def test_web_page_is_not_a_model(server: FileServer, part: Path) -> None:
    page = raw(200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>log in</html>")
    with pytest.raises(AddressError, match="web page"):
        download(server.serve("/f", page), part, len(DATA), retry=HASTY)
    assert not part.exists()


def test_too_little_room_is_reported_before_the_download(
    server: FileServer, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 100

    monkeypatch.setattr("realesr_cli.weights.download.shutil.disk_usage", lambda path: Usage)
    with pytest.raises(DownloadError, match=r"300\.0 KiB needed, 100 B free"):
        download(server.serve("/f", whole(DATA)), part, len(DATA), retry=HASTY)


def test_full_disk_keeps_what_there_is(
    server: FileServer, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("realesr_cli.weights.download.os.fsync", full)
    with pytest.raises(DownloadError, match="disk is full"):
        download(server.serve("/f", whole(DATA)), part, len(DATA), retry=HASTY)
    assert part.stat().st_size == len(DATA)


def test_interrupt_keeps_the_part_for_the_next_time(server: FileServer, part: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done >= HALF:
            raise KeyboardInterrupt

    url = server.serve("/f", whole(DATA))
    with pytest.raises(KeyboardInterrupt):
        download(url, part, len(DATA), retry=HASTY, progress=stop)
    kept = part.stat().st_size
    assert 0 < kept < len(DATA)
    download(url, part, len(DATA), retry=HASTY)
    assert part.read_bytes() == DATA
    assert server.ranges()[-1] == f"bytes={kept}-"


def test_proxy_of_the_environment_is_used(
    server: FileServer, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("HTTP_PROXY", server.address)
    server.serve("http://models.invalid/f", whole(DATA))
    download("http://models.invalid/f", part, len(DATA), retry=HASTY)
    assert part.read_bytes() == DATA


def test_dead_proxy_is_named(part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with pytest.raises(AddressError, match="proxy"):
        download("http://models.invalid/f", part, 10, retry=HASTY)


def test_discard_removes_part_and_note(server: FileServer, part: Path) -> None:
    download(server.serve("/f", whole(DATA)), part, len(DATA), retry=HASTY)
    assert len(list(part.parent.iterdir())) == 2
    discard(part)
    assert list(part.parent.iterdir()) == []


def test_patience_has_limits() -> None:
    with pytest.raises(ConfigError, match="attempts"):
        RetryPolicy(attempts=0)


# --- servers and folders that mean harm ---------------------------------------------------------


@pytest.mark.parametrize("place", ["http://[::1/x", "http://", "ftp://127.0.0.1/f", "http://a b/"])
def test_a_redirect_to_no_address_is_one_failed_address(
    server: FileServer, part: Path, place: str
) -> None:
    url = server.serve("/f", status(302, {"Location": place}))
    with pytest.raises(AddressError):
        download(url, part, len(DATA), retry=HASTY)


@pytest.mark.parametrize("url", ["http://[::1/x", "https://", "x", "", "http://a b/", "http://\0/"])
def test_an_address_that_is_none(part: Path, url: str, server: FileServer) -> None:
    with pytest.raises(AddressError):
        download(url, part, 10, retry=HASTY)


def test_a_server_that_trickles_is_given_up(server: FileServer, part: Path) -> None:
    """It sends a byte now and then, so no timeout of the connection ever ends it."""

    def trickle(handler: BaseHTTPRequestHandler) -> None:
        send(handler, 200, {"Content-Length": str(len(DATA))}, b"")
        for i in range(100):
            handler.wfile.write(DATA[i : i + 1])
            time.sleep(0.02)

    slow = RetryPolicy(attempts=1, window=0.1, sleep=lambda seconds: None)
    began = time.monotonic()
    with pytest.raises(AddressError, match="per second"):
        download(server.serve("/f", trickle), part, len(DATA), retry=slow)
    assert time.monotonic() - began < 1.5
    assert part.read_bytes() == DATA[: part.stat().st_size]


def test_a_slow_server_that_moves_is_not_given_up(server: FileServer, part: Path) -> None:
    patient = RetryPolicy(attempts=1, window=0.01, sleep=lambda seconds: None)
    url = server.serve("/f", whole(DATA, drip=0.02))
    download(url, part, len(DATA), retry=patient)
    assert part.read_bytes() == DATA


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_as_part_file_is_replaced(server: FileServer, part: Path) -> None:
    os.mkfifo(part)
    download(server.serve("/f", whole(DATA)), part, len(DATA), retry=HASTY)
    assert part.read_bytes() == DATA


@pytest.mark.parametrize("suffix", ["", ".json"])
def test_a_link_as_part_file_is_not_written_through(
    server: FileServer, part: Path, tmp_path: Path, suffix: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    part.with_name(part.name + suffix).symlink_to(victim)
    download(server.serve("/f", whole(DATA)), part, len(DATA), retry=HASTY)
    assert victim.read_bytes() == b"precious"
    assert part.read_bytes() == DATA


@pytest.mark.parametrize(
    ("text", "expected"),
    [("7", 7), ("Fri, 31 Dec 2100 23:59:59 GMT", 9), ("soon", 0), ("9" * 500, 9), ("-5", 0)],
)
def test_waits_are_what_the_server_names_within_reason(
    server: FileServer, part: Path, text: str, expected: float
) -> None:
    waits: list[float] = []
    patient = RetryPolicy(attempts=2, sleep=waits.append, longest_wait=9)
    url = server.serve("/f", status(429, {"Retry-After": text}), whole(DATA))
    download(url, part, len(DATA), retry=patient)
    assert waits == [expected]


@pytest.mark.parametrize(
    "note", [b"[" * 100_000, b'{"etag": 7, "url": 1e999}', b"[]", bytes(1 << 17)]
)
def test_a_damaged_note_is_no_note(server: FileServer, part: Path, note: bytes) -> None:
    part.write_bytes(DATA[:1000])
    part.with_name(part.name + ".json").write_bytes(note)
    download(server.serve("/f", whole(DATA)), part, len(DATA), retry=HASTY)
    assert part.read_bytes() == DATA


def test_no_connection_is_distinguished_from_a_refusal(server: FileServer, part: Path) -> None:
    with pytest.raises(UnreachableError):
        download("http://127.0.0.1:1/f", part, 10, retry=HASTY)
    with pytest.raises(AddressError) as caught:
        download(server.serve("/f", whole(DATA, cut=10)), part, len(DATA), retry=HASTY)
    assert not isinstance(caught.value, UnreachableError)
