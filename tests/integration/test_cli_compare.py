"""`realesr compare` as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparison_samples import save_net, save_photo
from PIL import Image as pillow

from realesr_cli.cli.compare import compare_command
from realesr_cli.cli.main import run
from realesr_cli.engine.upscaler import Upscaler
from realesr_cli.evaluate import side_by_side as comparing


@dataclass(frozen=True)
class Outcome:
    """What a call gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The JSON on stdout."""
        found: dict[str, Any] = json.loads(self.out)
        return found


Call = Callable[..., Outcome]


@pytest.fixture
def call(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Call:
    """`realesr compare ARGUMENTS` in a folder with photo.png and net.pth, on one thread."""
    monkeypatch.chdir(tmp_path)
    save_photo(tmp_path / "photo.png")
    save_net(tmp_path / "net.pth")

    def shell(*arguments: object) -> Outcome:
        capfd.readouterr()
        own = ["compare", "--device", "cpu", "--threads", "1"]
        with warnings.catch_warnings(), pytest.raises(SystemExit) as ended:
            run([*own, *(str(argument) for argument in arguments)])
        heard = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return Outcome(ended.value.code, heard.out, heard.err)

    return shell


def test_page_and_sheet(call: Call, tmp_path: Path) -> None:
    save_net(tmp_path / "other.pth", seed=8)
    done = call(
        "photo.png", "-m", "net.pth", "-m", "other.pth", "-o", "out/r.html", "--sheet", "out/s.png"
    )
    assert done.code == 0, done.err
    assert done.err == ""
    assert "out/r.html: 1 photo x4, input, bicubic, net, other, " in done.out.replace("\\", "/")
    page = (tmp_path / "out" / "r.html").read_text(encoding="utf-8")
    assert page.count("<figure") == 4
    with pillow.open(tmp_path / "out" / "s.png") as image:
        assert image.width > 3 * 120


def test_json(call: Call) -> None:
    with pillow.open("photo.png") as image:
        image.resize((120, 80)).save("gt.png")
    done = call("photo.png", "-m", "net.pth", "-o", "r.html", "--gt", "gt.png", "--json")
    assert done.code == 0
    found = done.json
    assert found["scale"] == 4
    assert found["models"][0]["files"][0]["name"] == "net.pth"
    versions = {v["name"]: v for v in found["photos"][0]["versions"]}
    assert list(versions) == ["input", "bicubic", "net", "original"]
    assert set(versions["net"]["scores"]) == {"psnr-rgb", "ssim-y"}
    assert versions["net"]["seconds"] > 0
    assert found["written"] == [{"path": "r.html", "bytes": Path("r.html").stat().st_size}]


def test_quiet_and_settings_of_the_page(call: Call, tmp_path: Path) -> None:
    done = call("photo.png", "-m", "net.pth", "-o", "r.html", "-q", "--title", "A < B",
                "--quality", "80", "--no-scores", "--precision", "fp32", "-t", "8")  # fmt: skip
    assert (done.code, done.out, done.err) == (0, "", "")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    for words in ("A &lt; B", "WebP of quality 80", "cpu, fp32", "8 pixels, overlap"):
        assert words in page
    assert "not scored" not in page


def test_chosen_crops(call: Call, tmp_path: Path) -> None:
    done = call("photo.png", "-m", "net.pth", "--sheet", "s.png", "--crop", "3,2,20,10")
    assert done.code == 0, done.err
    with pillow.open(tmp_path / "photo.png") as image:
        squares = np.array(image)[2:12, 3:23].repeat(4, 0).repeat(4, 1)
    with pillow.open(tmp_path / "s.png") as image:
        sheet = np.array(image)
    bottom = sheet.shape[0] - 24 - 13 - 18
    assert np.array_equal(sheet[bottom - 40 : bottom, 24 : 24 + 80], squares)


def test_number_of_detailed_parts(call: Call, tmp_path: Path) -> None:
    heights = []
    for count in (1, 2):
        name = f"{count}.png"
        call("photo.png", "-m", "net.pth", "--sheet", name, "--crops", count, "--crop-size", 32)
        with pillow.open(tmp_path / name) as image:
            heights.append(image.height)
    assert heights[1] - heights[0] == 32 + 13 + 18


def test_unreadable_photo_is_named_and_the_rest_done(call: Call, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    done = call("bad.png", "photo.png", "-m", "net.pth", "-o", "r.html")
    assert done.code == 1
    assert "error: bad.png: " in done.err
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert page.count("<article") == 1
    assert "Excluded: bad.png" in page


def test_nothing_is_written_where_nothing_can_be_shown(call: Call, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    done = call("bad.png", "-m", "net.pth", "-o", "r.html")
    assert done.code == 1
    assert "bad.png" in done.err
    assert not (tmp_path / "r.html").exists()


def test_a_large_page_is_warned_about_before_it_is_made(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels: list[int] = []
    monkeypatch.setattr("realesr_cli.evaluate.page.warn_about_size", lambda n, s: pixels.append(n))
    monkeypatch.setattr(comparing, "compare", lambda *a, **k: pytest.fail(f"warned about {pixels}"))
    with pytest.raises(pytest.fail.Exception, match=r"\[19200\]"):
        call("photo.png", "-m", "net.pth", "-o", "r.html")
    with pytest.raises(pytest.fail.Exception, match=r"\[19200\]"):
        call("photo.png", "-m", "net.pth", "--sheet", "s.png")


def test_the_backend_is_passed_on(call: Call) -> None:
    done = call("photo.png", "-m", "net.pth", "-o", "r.html", "--backend", "torch", "--json")
    assert done.json["models"][0]["backend"] == "torch"
    assert call("photo.png", "-m", "net.pth", "-o", "r2.html", "--backend", "abacus").code == 2


def test_original_of_another_size(call: Call, tmp_path: Path) -> None:
    save_photo(tmp_path / "gt.png", 100, 80)
    done = call("photo.png", "-m", "net.pth", "-o", "r.html", "--gt", "gt.png")
    assert done.code == 1
    assert "gt.png has 100x80 pixels, but photo.png upscaled x4 has 120x80" in done.err


def test_models_of_different_scale(call: Call, tmp_path: Path) -> None:
    save_net(tmp_path / "double.pth", scale=2)
    done = call("photo.png", "-m", "net.pth", "-m", "double.pth", "-o", "r.html")
    assert done.code == 2
    assert "net x4, double x2" in done.err
    assert not (tmp_path / "r.html").exists()


REFUSED = {
    "at least one photo": ("-o", "r.html"),
    "no output": ("photo.png",),
    "ends in .html": ("photo.png", "-o", "r.png"),
    "s.xyz: expected one of": ("photo.png", "--sheet", "s.xyz"),
    "2 originals for 1 photos": ("photo.png", "--gt", "photo.png", "--gt", "p", "-o", "r.html"),
    "expected X,Y,WIDTH,HEIGHT": ("photo.png", "--sheet", "s.png", "--crop", "1,2,3"),
    "is outside photo.png (30x20)": ("photo.png", "--sheet", "s.png", "--crop", "20,0,20,9"),
    "got ''": ("", "-o", "r.html"),
    "File name too long": ("photo.png", "-o", "x" * 5000 + ".html"),
    "photo.png is an input": ("photo.png", "--sheet", "photo.png", "--overwrite"),
}


@pytest.mark.parametrize("words", REFUSED)
def test_refused_before_any_work(
    call: Call, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(Upscaler, "__call__", lambda *a, **k: pytest.fail("it was computed"))
    done = call("-m", "net.pth", *REFUSED[words])
    assert done.code == 2
    assert words in done.err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_is_there_is_not_replaced_unasked(call: Call, tmp_path: Path) -> None:
    (tmp_path / "r.html").write_text("mine")
    done = call("photo.png", "-m", "net.pth", "-o", "r.html")
    assert done.code == 2
    assert "r.html already exists" in done.err
    assert (tmp_path / "r.html").read_text() == "mine"
    assert call("photo.png", "-m", "net.pth", "-o", "r.html", "--overwrite").code == 0
    assert (tmp_path / "r.html").stat().st_size > 10_000


def test_a_place_that_takes_no_file(call: Call, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    done = call("photo.png", "-m", "net.pth", "-o", "file/r.html")
    assert done.code == 2
    assert "cannot write into file" in done.err
    (tmp_path / "folder.html").mkdir()
    done = call("photo.png", "-m", "net.pth", "-o", "folder.html")
    assert done.code == 2
    assert "is a folder" in done.err


def test_interrupted(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = comparing.Upscaler.__call__

    def stopping(self: Upscaler, *args: Any, **given: Any) -> Any:
        if "stop_requested" in given:
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, *args, **given)

    monkeypatch.setattr(comparing.Upscaler, "__call__", stopping)
    done = call("photo.png", "-m", "net.pth", "-o", "r.html")
    assert done.code == 130
    assert "nothing will be written" in done.err
    assert not (tmp_path / "r.html").exists()


def test_every_setting_has_an_option() -> None:
    names = {name for param in compare_command.params for name in param.opts}
    assert {"--title", "--quality", "--scores", "--crops", "--crop-size", "--max-pixels"} <= names
    assert {"--device", "--precision", "--tile", "--overlap", "--batch", "--threads"} <= names
