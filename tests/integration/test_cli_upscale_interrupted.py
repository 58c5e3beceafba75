"""Runs that are interrupted by Ctrl-C or killed, and the rerun that finishes them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from upscale_cli import Shell, make_image, size_of

from realesr_cli.atomic import PREFIX, SUFFIX
from realesr_cli.cli.terminal import interruptible

IMAGES = 6
SIDE = 240
PATIENCE = 60


@contextmanager
def _started(tiny: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`realesr upscale in -o out` as a process of its own, ended in any case."""
    command = [sys.executable, "-m", "realesr_cli", "upscale", "in", "-o", "out/", "-m", str(tiny)]
    command += ["--device", "cpu", "--threads", "1"]
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def _wait_for(ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not ready():
        assert process.poll() is None, "the run ended before it could be interrupted"
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.002)


def _inputs() -> None:
    for i in range(IMAGES):
        make_image(f"in/{i:02}.png", SIDE, SIDE + i)


def _results() -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in Path("out").iterdir()}


def _parts() -> list[Path]:
    return list(Path("out").glob(".*part"))


def test_a_killed_run_is_finished_by_the_next(shell: Shell, tiny: Path):
    _inputs()
    assert shell("in", "-o", "expected/").code == 0
    expected = {p.name: p.read_bytes() for p in Path("expected").iterdir()}
    with _started(tiny) as process:
        _wait_for(lambda: Path("out/01_x4.png").exists() and bool(_parts()), process)
        process.kill()
        process.wait()
    left = _results()
    finished = {name for name in left if name.endswith(".png")}
    assert 2 <= len(finished) < IMAGES
    for name in finished:
        assert left[name] == expected[name]
    times = {name: Path("out", name).stat().st_mtime_ns for name in finished}
    # The kill may have come just after a part file was renamed; one is left for certain now.
    Path("out", f"{PREFIX}0123456789abcdef{SUFFIX}").write_bytes(b"half")
    outcome = shell("in", "-o", "out/")
    assert outcome.code == 0
    assert f"{IMAGES - len(finished)} done, {len(finished)} skipped" in outcome.err
    assert _results() == expected
    assert {name: Path("out", name).stat().st_mtime_ns for name in finished} == times


def test_an_interrupted_run_leaves_only_whole_images(shell: Shell, tiny: Path):
    _inputs()
    with _started(tiny) as process:
        _wait_for(lambda: Path("out/00_x4.png").exists(), process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert err.decode().count("stopping after the current tile") == 1
    assert "stopped" in err.decode()
    assert "Traceback" not in err.decode()
    assert _parts() == []
    names = sorted(_results())
    assert 1 <= len(names) < IMAGES
    for i, name in enumerate(names):
        assert size_of(f"out/{name}") == (4 * SIDE, 4 * (SIDE + i))
    assert shell("in", "-o", "out/").code == 0
    assert len(_results()) == IMAGES


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_asks_and_the_second_acts(
    number: signal.Signals, code: int, monkeypatch: pytest.MonkeyPatch
):
    heard: list[int] = []
    usual = signal.signal(number, lambda n, frame: heard.append(n))
    try:
        with interruptible() as interrupt:
            assert not interrupt.stop_requested()
            os.kill(os.getpid(), number)
            assert interrupt.stop_requested()
            assert interrupt.exit_code == code
            assert heard == []
            os.kill(os.getpid(), number)
            assert heard == [number]
        os.kill(os.getpid(), number)
        assert heard == [number, number]
    finally:
        signal.signal(number, usual)


def test_outside_the_main_thread_no_signal_is_taken():
    usual = signal.getsignal(signal.SIGINT)
    heard: list[bool] = []

    def work() -> None:
        with interruptible() as interrupt:
            heard.append(interrupt.stop_requested())
            heard.append(signal.getsignal(signal.SIGINT) is usual)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert heard == [False, True]
