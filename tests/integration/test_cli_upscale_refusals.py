"""Bad input of every kind: refused with a reason and the right exit code, nothing left behind."""

from __future__ import annotations

import errno
import os
import pickle
import struct
import tempfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as pillow
from upscale_cli import Shell, make_image, size_of

from realesr_cli import atomic


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.png"], "no such file or folder"),
        (["*.nothing"], "no file matches"),
        (["a.png", "-s", "0"], "more than 0"),
        (["a.png", "-s", "-2"], "more than 0"),
        (["a.png", "-s", "nan"], "more than 0"),
        (["a.png", "-s", "x"], "expected number"),
        (["a.png", "-s", "2", "--width", "9"], "max_side"),
        (["a.png", "--fit", "9"], "expected WIDTHxHEIGHT"),
        (["a.png", "--fit", "0x9"], "expected WIDTHxHEIGHT"),
        (["a.png", "--tile", "-1"], "at least 0"),
        (["a.png", "--format", "gif"], "gif"),
        (["a.png", "-o", "b.gif"], "gif"),
        (["a.png", "-o", "b.jpg", "--format", "png"], "omit one of them"),
        (["a.png", "-o", "-", "--json"], "stdout"),
        (["a.png", "b.png", "-o", "c.png"], "one file for 2 inputs"),
        (["a.png", "b.png", "-o", "-"], "one image, got 2"),
        (["a.png", "s/a.png", "-o", "out/"], "same output"),
        (["a.png", "-o", "a.png"], "an input would be overwritten"),
        (["a.png", "-o", "link.png"], "an input would be overwritten"),
        (["a.png", "-o", "{stem}{ext}", "--overwrite"], "an input would be overwritten"),
        (["b.png"], "an existing folder"),
        (["a.png", "-o", "{stme}{ext}"], "did you mean 'stem'"),
        (["empty"], "no image found"),
        (["a.png", "-o", "file/x.png"], "cannot write into file"),
        (["a.png", "--device", "cuda:9"], "cuda:9"),
        (["a.png", "--denoise", "0.5"], "weak-denoise partner"),
        (["a.png", "--denoise", "0.5", "--dry-run"], "weak-denoise partner"),
        (["a.png", "--lossless", "-o", "b.jpg"], "lossless"),
        ([], "realesr upscale photo.jpg"),
    ],
)
def test_calls_that_cannot_be_meant(shell: Shell, arguments: list[str], message: str):
    for name in ("a.png", "b.png", "s/a.png"):
        make_image(name)
    Path("b_x4.png").mkdir()
    Path("empty").mkdir()
    Path("file").write_text("")
    os.symlink("a.png", "link.png")
    before = sorted(p.as_posix() for p in Path().rglob("*"))
    bytes_before = Path("a.png").read_bytes()
    outcome = shell(*arguments)
    assert message in outcome.err
    assert outcome.code == 2
    assert sorted(p.as_posix() for p in Path().rglob("*")) == before
    assert Path("a.png").read_bytes() == bytes_before


def test_images_and_json_do_not_share_standard_output(shell: Shell):
    data = make_image("a.png").read_bytes()
    outcome = shell("-", "--json", stdin=data)
    assert (outcome.code, outcome.out) == (2, b"")
    assert "name a file with -o" in outcome.err
    assert shell("-", "--json", "-o", "b.png", stdin=data).code == 0


def _bomb() -> bytes:
    """A PNG whose header promises 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def _bad_images() -> dict[str, tuple[bytes, str]]:
    whole = {}
    for kind in ("png", "jpg", "webp", "tif"):
        path = Path(f"whole.{kind}")
        make_image(path, 64, 48)
        whole[kind] = path.read_bytes()
        path.unlink()
    return {
        "empty.png": (b"", "empty"),
        "text.png": (b"just some text\n" * 9, "contains text"),
        "cut.png": (whole["png"][: len(whole["png"]) * 2 // 3], "cut"),
        "cut.jpg": (whole["jpg"][: len(whole["jpg"]) * 2 // 3], "cut.jpg"),
        "cut.webp": (whole["webp"][: len(whole["webp"]) * 2 // 3], "cut.webp"),
        "cut.tif": (whole["tif"][: len(whole["tif"]) * 2 // 3], "cut.tif"),
        "bomb.png": (_bomb(), "--max-pixels"),
        "noise.png": (bytes(range(256)) * 4, "noise.png"),
    }


def test_bad_images_fail_with_a_reason_and_leave_nothing(shell: Shell):
    bad = _bad_images()
    for name, (data, _) in bad.items():
        Path(name).write_bytes(data)
    make_image("good.png")
    outcome = shell(*bad, "good.png", "--json")
    assert outcome.code == 1
    errors = {item["input"]: item["error"] for item in outcome.images}
    for name, (_, reason) in bad.items():
        assert reason in errors[name]
        assert name in errors[name]
    assert errors["good.png"] is None
    assert sorted(os.listdir()) == sorted([*bad, "good.png", "good_x4.png"])


def test_the_limit_of_pixels_can_be_set(shell: Shell):
    make_image("a.png", 20, 10)
    assert "--max-pixels" in shell("a.png", "--max-pixels", "199").err
    assert shell("a.png", "--max-pixels", "200").code == 0


@pytest.mark.parametrize(
    ("name", "scale", "limit"), [("a.jpg", "64", "65,535"), ("a.webp", "64", "16,383")]
)
def test_results_beyond_a_format_are_refused_before_any_work(
    shell: Shell, name: str, scale: str, limit: str
):
    make_image(name, 1025, 1)
    outcome = shell(name, "-s", scale)
    assert outcome.code == 1
    assert limit in outcome.err
    assert os.listdir() == [name]


class _Planted:
    """An object whose unpickling would run code."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("executed",)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty"), (pickle.dumps(_Planted()), "bad.pth"), (b"text" * 50, "bad.pth")],
    ids=["empty", "code", "text"],
)
def test_bad_weights_are_refused_and_never_run(shell: Shell, content: bytes, reason: str):
    make_image("a.png")
    Path("bad.pth").write_bytes(content)
    outcome = shell("a.png", model="bad.pth")
    assert outcome.code == 3
    assert reason in outcome.err
    assert sorted(os.listdir()) == ["a.png", "bad.pth"]


def test_unknown_models_and_models_that_cannot_be_fetched(shell: Shell):
    make_image("a.png")
    outcome = shell("a.png", model="x4pluss")
    assert (outcome.code, "did you mean 'x4plus'" in outcome.err) == (3, True)
    outcome = shell("a.png", "--offline", model="x4plus")
    assert outcome.code == 3
    assert "models import" in outcome.err
    assert os.listdir() == ["a.png"]


def test_a_folder_that_takes_no_files(shell: Shell, monkeypatch: pytest.MonkeyPatch):
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    make_image("a.png")
    monkeypatch.setattr(tempfile, "TemporaryFile", denied)
    outcome = shell("a.png", "-o", "out/")
    assert outcome.code == 2
    assert "cannot write into out: Permission denied" in outcome.err
    assert os.listdir() == ["a.png"]


def test_a_full_disk_ends_the_run_and_leaves_no_part(shell: Shell, monkeypatch: pytest.MonkeyPatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in "abcdef":
        make_image(f"in/{name}.png")
    monkeypatch.setattr(atomic.os, "fsync", full)
    outcome = shell("in", "-o", "out")
    assert outcome.code == 1
    assert "No space left on device" in outcome.err
    assert "free some space" in outcome.err
    assert "1 failed, 5 stopped" in outcome.err
    assert os.listdir("out") == []
    monkeypatch.undo()


def test_an_original_among_the_inputs_is_never_replaced(shell: Shell):
    make_image("in/a.png")
    original = make_image("in/a_x4.png", 99, 77).read_bytes()
    outcome = shell("in")
    assert outcome.code == 1
    assert "99x77 pixels instead of 48x32" in outcome.err
    assert Path("in/a_x4.png").read_bytes() == original


def test_a_gray_image_of_one_pixel_is_no_bad_input(shell: Shell):
    pillow.new("L", (1, 1), 77).save("a.png")
    assert shell("a.png").code == 0
    assert size_of("a_x4.png") == (4, 4)
