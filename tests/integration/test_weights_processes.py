"""Several processes and a kill -9 leave one whole file in the cache, fetched once."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from weights_server import FileServer, stalled, whole

DATA = os.urandom(1 << 20)

ENTRY = """
import sys
from realesr_cli.weights.fetch import ensure
from realesr_cli.weights.registry import RegistryEntry
url, size, sha256 = sys.argv[1:]
entry = RegistryEntry(name="tiny", file="tiny.pth", urls=(url,), bytes=int(size), sha256=sha256)
"""

ENSURE = ENTRY + "print(ensure(entry), flush=True)"

COMMAND = (
    ENTRY
    + """
import signal
import click
from realesr_cli.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # A background job ignores it.
command = click.Command("pull", callback=lambda: ensure(entry))
main.COMMANDS = {"pull": ("", "")}
main.LazyGroup.get_command = lambda self, ctx, name: command
main.run(["pull"])
"""
)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as running:
        yield running


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Set at the end of the test, so that no thread of the server waits on."""
    event = threading.Event()
    yield event
    event.set()


def wait_for_part(process: subprocess.Popen[str], part: Path) -> None:
    """Wait until the download has begun."""
    ends = time.monotonic() + 60
    while not (part.is_file() and part.stat().st_size):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < ends
        time.sleep(0.01)


def start(url: str, home: Path, script: str = ENSURE) -> subprocess.Popen[str]:
    sha256 = hashlib.sha256(DATA).hexdigest()
    return subprocess.Popen(
        [sys.executable, "-c", script, url, str(len(DATA)), sha256],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "REALESR_HOME": str(home), "NO_PROXY": "127.0.0.1"},
    )


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out.strip()


def test_two_processes_at_once_fetch_once(server: FileServer, tmp_path: Path) -> None:
    url = server.serve("/tiny.pth", whole(DATA, drip=0.02))
    paths = [finish(p) for p in [start(url, tmp_path) for _ in range(3)]]
    assert len(set(paths)) == 1
    assert Path(paths[0]).read_bytes() == DATA
    assert len(server.requests) == 1


def test_killed_process_leaves_no_lock_and_a_part_to_go_on_from(
    server: FileServer, tmp_path: Path, release: threading.Event
) -> None:
    url = server.serve("/tiny.pth", stalled(DATA, 1 << 18, release), whole(DATA))
    part = tmp_path / "weights" / "tiny.pth.part"
    process = start(url, tmp_path)
    wait_for_part(process, part)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    kept = part.stat().st_size
    assert not part.with_name("tiny.pth").exists()
    assert Path(finish(start(url, tmp_path))).read_bytes() == DATA
    assert server.ranges() == [None, f"bytes={kept}-"]


def test_ctrl_c_in_a_download_leaves_with_130(
    server: FileServer, tmp_path: Path, release: threading.Event
) -> None:
    url = server.serve("/tiny.pth", stalled(DATA, 1 << 18, release))
    process = start(url, tmp_path, COMMAND)
    part = tmp_path / "weights" / "tiny.pth.part"
    wait_for_part(process, part)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.endswith("error: interrupted\n")
    assert part.stat().st_size > 0
