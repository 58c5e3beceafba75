"""A second run: what is finished is skipped, and nothing else is taken for finished."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image as pillow
from upscale_cli import Shell, make_image, save_tiny, size_of

from realesr_cli.errors import ModelUnavailableError
from realesr_cli.weights import fetch, registry


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of another network."""
    return save_tiny(tmp_path_factory.mktemp("other") / "other.pth", seed=8)


def test_another_model_is_not_taken_for_done(shell: Shell, other: Path):
    make_image("photo.jpg")
    shell("photo.jpg")
    before = Path("photo_x4.jpg").read_bytes()
    outcome = shell("photo.jpg", model=other)
    assert outcome.code == 1
    assert "photo_x4.jpg: already exists, made with model tiny instead of other" in outcome.err
    assert "--overwrite" in outcome.err
    assert "-o" in outcome.err
    assert Path("photo_x4.jpg").read_bytes() == before
    assert shell("photo.jpg", "-o", "other.jpg", model=other).code == 0
    assert shell("photo.jpg", "--overwrite", model=other).code == 0
    assert Path("photo_x4.jpg").read_bytes() == Path("other.jpg").read_bytes()


@pytest.mark.parametrize(
    "options", [["--strength", "0.5"], ["--quality", "60"], ["--precision", "bf16"], ["--tta"]]
)
def test_another_setting_is_not_taken_for_done(shell: Shell, options: list[str]):
    make_image("photo.jpg")
    shell("photo.jpg")
    outcome = shell("photo.jpg", *options)
    assert outcome.code == 1
    assert options[0].strip("-") in outcome.err
    assert shell("photo.jpg", *options, "--overwrite").code == 0
    assert shell("photo.jpg", *options).code == 0


def test_a_renamed_or_copied_model_is_the_same_model(shell: Shell, tiny: Path):
    make_image("a.png")
    shell("a.png")
    shutil.copy(tiny, "copy.pth")
    outcome = shell("a.png", model="copy.pth")
    assert outcome.code == 0
    assert "already exists" in outcome.err


def test_a_file_that_only_has_the_name_of_a_result(shell: Shell):
    make_image("a.png")
    Path("a_x4.png").write_text("my notes")
    outcome = shell("a.png")
    assert outcome.code == 1
    assert "a_x4.png: already exists" in outcome.err
    assert Path("a_x4.png").read_text() == "my notes"
    assert shell("a.png", "--overwrite").code == 0
    assert size_of("a_x4.png") == (48, 32)


def test_results_among_the_inputs_are_left_out_whatever_made_them(shell: Shell, other: Path):
    for name in "abc":
        make_image(f"in/{name}.png")
    shell("in", model=other)
    os.rename("in/a_x4.png", "in/renamed.png")
    outcome = shell("in", "-s", "2")
    assert outcome.code == 0
    assert "3 excluded as results of an earlier run" in outcome.err
    assert sorted(p.name for p in Path("in").glob("*x2*")) == ["a_x2.png", "b_x2.png", "c_x2.png"]
    # One that is named, and a folder of results whose own results go elsewhere, are meant.
    assert shell("in/renamed.png").code == 0
    assert shell("in", "-o", "out/", "-s", "2").code == 0
    assert "b_x4_x2.png" in os.listdir("out")


def test_a_folder_of_results_alone_has_nothing_to_do(shell: Shell):
    make_image("a.png")
    shell("a.png", "-o", "in/")
    outcome = shell("in")
    assert outcome.code == 0
    assert "1 excluded" in outcome.err
    assert os.listdir("in") == ["a_x4.png"]


def test_metadata_of_the_input_says_nothing_about_the_result(shell: Shell):
    """A result that is enlarged once more carries one record, its own."""
    make_image("a.png")
    shell("a.png")
    shell("a_x4.png", "-s", "2", "-o", "b.png")
    assert Path("b.png").read_bytes().count(b"realesr:madeBy>") == 2  # start and end tag
    assert shell("a_x4.png", "-s", "2", "-o", "b.png").code == 0


def test_stripped_results_carry_no_record(shell: Shell):
    make_image("a.png")
    assert shell("a.png", "--strip-metadata").code == 0
    assert b"realesr" not in Path("a_x4.png").read_bytes()
    assert "already exists" in shell("a.png", "--strip-metadata").err
    assert shell("a.png").code == 1


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "tif", "avif", "bmp"])
def test_every_format_is_skipped_the_second_time(shell: Shell, extension: str):
    make_image("a.png")
    assert shell("a.png", "-o", f"x.{extension}").code == 0
    first = os.stat(f"x.{extension}").st_mtime_ns
    assert shell("a.png", "-o", f"x.{extension}").code == 0
    assert os.stat(f"x.{extension}").st_mtime_ns == first


def test_an_archive_is_skipped_the_second_time(shell: Shell, other: Path):
    make_image("p/1.png")
    shutil.make_archive("comic", "zip", "p")
    assert shell("comic.zip").code == 0
    first = os.stat("comic_x4.zip").st_mtime_ns
    assert shell("comic.zip").code == 0
    assert os.stat("comic_x4.zip").st_mtime_ns == first
    assert "model tiny instead of other" in shell("comic.zip", model=other).err
    Path("comic_x4.zip").write_bytes(Path("comic_x4.zip").read_bytes()[:-9])
    assert shell("comic.zip").code == 1
    assert shell("comic.zip", "--overwrite").code == 0


def test_what_stands_in_for_auto_is_recorded_as_what_it_is(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
):
    """Without network `auto` is the bundled model; a second run must neither redo nor deny it."""

    def unavailable(*_: object, **__: object) -> Path:
        raise ModelUnavailableError("no network")

    monkeypatch.setattr(fetch, "ensure", unavailable)
    make_image("a.png")
    for code, words in ((0, "photo"), (0, "already exists")):
        outcome = shell("a.png", "-o", "{stem}-{model}.png", model="auto")
        assert outcome.code == code
        assert words in outcome.err
        assert sorted(os.listdir()) == ["a-photo.png", "a.png"]
    first = registry.find("RealESRGAN_x4plus")
    assert first is not None
    assert registry.cached(first) is None


def test_unsupported_images_in_a_folder_are_counted(shell: Shell):
    make_image("in/a.png")
    make_image("in/note.png").with_name("note.txt").write_text("text")
    os.remove("in/note.png")
    for name, data in {
        "b.heic": b"\0\0\0\x18ftypheic" + bytes(99),
        "c.exr": b"v/1\x01" + bytes(99),
        "d.hdr": b"#?RADIANCE\n" + bytes(99),
        "e.jxl": b"\xff\x0a" + bytes(99),
        "f.psb": b"8BPS\0\2" + bytes(99),
    }.items():
        Path("in", name).write_bytes(data)
    outcome = shell("in", "-o", "out/")
    assert outcome.code == 1
    assert "1 done, 5 failed" in outcome.err
    for name in ("b.heic", "c.exr", "d.hdr", "e.jxl", "f.psb"):
        assert f"in/{name}: " in outcome.err
    assert os.listdir("out") == ["a_x4.png"]


def test_a_result_says_how_it_was_made_in_its_xmp(shell: Shell):
    make_image("a.png")
    shell("a.png", "--strength", "0.75")
    with pillow.open("a_x4.png") as image:
        packet = image.info["xmp"].decode()
    assert "tiny" in packet
    assert "0.75" in packet
