"""`realesr upscale` as a user calls it: inputs, outputs, formats, JSON, preview, exit codes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as pillow
from upscale_cli import Shell, make_image, save_tiny, size_of

from realesr_cli.batch import pipeline


def test_a_result_goes_beside_its_input(shell: Shell):
    make_image("photo.png")
    outcome = shell("photo.png")
    assert outcome.code == 0
    assert size_of("photo_x4.png") == (48, 32)
    assert "photo.png -> photo_x4.png" in outcome.err
    assert "12x8 -> 48x32" in outcome.err
    assert outcome.out == b""


@pytest.mark.parametrize(
    ("options", "name", "size"),
    [
        (["-s", "2.5"], "a_x2.5.png", (30, 20)),
        (["--scale", "1"], "a_x1.png", (12, 8)),
        (["--width", "36"], "a_x3.png", (36, 24)),
        (["--height", "4"], "a_x0.5.png", (6, 4)),
        (["--width", "20", "--height", "30"], "a_x1.67.png", (20, 30)),
        (["--fit", "30x30"], "a_x2.5.png", (30, 20)),
        (["--max-side", "24"], "a_x2.png", (24, 16)),
    ],
)
def test_sizes_are_exactly_those_asked_for(
    shell: Shell, options: list[str], name: str, size: tuple[int, int]
):
    make_image("a.png")
    assert shell("a.png", *options).code == 0
    assert size_of(name) == size


@pytest.mark.parametrize(
    ("output", "expected", "kind"),
    [
        ("big.webp", "big.webp", "WEBP"),
        ("out/", "out/a_x4.png", "PNG"),
        ("sub/{stem}-{model}-{width}.jpg", "sub/a-tiny-48.jpg", "JPEG"),
        ("x.tif", "x.tif", "TIFF"),
        ("x.bmp", "x.bmp", "BMP"),
        ("x.avif", "x.avif", "AVIF"),
    ],
)
def test_output_files_folders_templates_and_formats(
    shell: Shell, output: str, expected: str, kind: str
):
    make_image("a.png")
    assert shell("a.png", "-o", output).code == 0
    with pillow.open(expected) as image:
        assert (image.format, image.size) == (kind, (48, 32))


def test_format_and_quality(shell: Shell):
    make_image("a.png")
    shell("a.png", "--format", "jpeg", "--quality", "10", "-o", "low/")
    shell("a.png", "--format", "jpg", "--quality", "95", "-o", "high/")
    low, high = Path("low/a_x4.jpg"), Path("high/a_x4.jpg")
    assert low.stat().st_size < high.stat().st_size
    shell("a.png", "--format", "webp", "--lossless", "-o", "w/")
    shell("a.png", "-o", "p/")
    first, second = (np.asarray(pillow.open(p)) for p in ("w/a_x4.webp", "p/a_x4.png"))
    assert (first == second).all()


def test_a_folder_is_mirrored_and_other_files_are_passed_over(shell: Shell):
    make_image("in/a.png")
    make_image("in/sub/b.jpg")
    make_image("in/.hidden.png")
    Path("in/readme.txt").write_text("hello")
    outcome = shell("in", "-o", "out", "--recursive")
    assert outcome.code == 0
    found = sorted(p.relative_to("out").as_posix() for p in Path("out").rglob("*.*"))
    assert found == ["a_x4.png", "sub/b_x4.jpg"]
    assert "2 done" in outcome.err


def test_the_output_folder_inside_the_input_is_not_searched(shell: Shell):
    make_image("in/a.png")
    shell("in", "-o", "in/out", "-r")
    outcome = shell("in", "-o", "in/out", "-r")
    assert "in/out is the output folder" in outcome.err
    assert "already exists" in outcome.err
    assert os.listdir("in/out") == ["a_x4.png"]


def test_names_of_any_script_and_shape(shell: Shell):
    names = ["写真 1.png", "été.PNG", "😀.png", "a[1].png", "-dash.png", "100% {x}.png"]
    for name in names:
        make_image(f"in/{name}")
    assert shell("in", "-o", "out/").code == 0
    assert sorted(p.name for p in Path("out").iterdir()) == sorted(
        n.replace(".png", "_x4.png").replace(".PNG", "_x4.PNG") for n in names
    )
    assert shell("-o", "x.png", "--", "in/-dash.png").code == 0


def test_a_second_run_does_nothing_and_overwrite_does_it_again(shell: Shell):
    make_image("in/a.png")
    make_image("in/b.png")
    shell("in")
    first = {p.name: p.stat().st_mtime_ns for p in Path("in").iterdir()}
    again = shell("in")
    assert again.code == 0
    assert {p.name: p.stat().st_mtime_ns for p in Path("in").iterdir()} == first
    assert "2 skipped" in again.err
    assert "2 excluded as results of an earlier run" in again.err
    shell("in", "--overwrite")
    assert sorted(p.name for p in Path("in").iterdir()) == sorted(first)
    assert Path("in/a_x4.png").stat().st_mtime_ns > first["a_x4.png"]


def test_what_is_finished_needs_no_model(shell: Shell, monkeypatch: pytest.MonkeyPatch):
    make_image("a.png")
    shell("a.png")
    opened: list[object] = []
    monkeypatch.setattr("realesr_cli.cli.upscale.open_models", opened.append)
    outcome = shell("a.png", "--denoise", "0.5", model="general")  # not cached, no network
    assert (outcome.code, opened) == (1, [])
    assert "model tiny instead of 0.5 realesr-general-wdn" in outcome.err


def test_a_damaged_result_is_made_again(shell: Shell):
    make_image("a.png")
    shell("a.png")
    good = Path("a_x4.png").read_bytes()
    Path("a_x4.png").write_bytes(good[: len(good) // 2])
    assert shell("a.png").code == 0
    assert Path("a_x4.png").read_bytes() == good


def test_pipes(shell: Shell):
    data = make_image("a.png").read_bytes()
    outcome = shell("-", "-o", "-", stdin=data)
    assert outcome.code == 0
    shell("a.png")
    assert outcome.out == Path("a_x4.png").read_bytes()
    assert shell("-", "--format", "jpg", stdin=data).out.startswith(b"\xff\xd8")
    assert shell("-", "-o", "named.webp", stdin=data).code == 0
    assert size_of("named.webp") == (48, 32)
    assert shell("-", "-o", "dir/", stdin=data).code == 0
    assert size_of("dir/stdin_x4.png") == (48, 32)


def test_json_gives_one_object_per_image_and_a_summary(shell: Shell):
    make_image("a.png")
    make_image("b.png")
    Path("bad.png").write_text("no image")
    outcome = shell("a.png", "bad.png", "b.png", "--json")
    assert outcome.code == 1
    first, second, third = outcome.images
    assert first["input"] == "a.png"
    assert first["output"] == "a_x4.png"
    assert (first["width"], first["height"]) == (12, 8)
    assert (first["out_width"], first["out_height"]) == (48, 32)
    assert (first["status"], first["error"], first["model"]) == ("done", None, "tiny")
    assert first["seconds"] > 0
    assert first["precision"] in ("fp32", "bf16")
    assert first["tile"] > 0
    assert (second["status"], second["input"]) == ("failed", "bad.png")
    assert "text" in second["error"]
    assert third["status"] == "done"
    assert (outcome.summary["done"], outcome.summary["failed"]) == (2, 1)
    assert outcome.objects[-1]["exit_code"] == 1


def test_a_bad_image_is_reported_and_listed_at_the_end(shell: Shell):
    make_image("in/a.png")
    make_image("in/z.png")
    Path("in/bad.png").write_text("no image")
    Path("in/empty.jpg").write_bytes(b"")
    outcome = shell("in")
    assert outcome.code == 1
    assert size_of("in/a_x4.png") == size_of("in/z_x4.png") == (48, 32)
    assert "2 of 4 images failed" in outcome.err
    assert outcome.err.count("contains text") == 2  # when it happens, and in the list
    assert "2 done, 2 failed" in outcome.err


def test_fail_fast_stops_at_the_first_bad_image(shell: Shell):
    Path("a.png").write_text("no image")
    make_image("b.png")
    outcome = shell("a.png", "b.png", "--fail-fast")
    assert outcome.code == 1
    assert not Path("b_x4.png").exists()
    assert "1 failed, 1 stopped" in outcome.err


def test_quiet_says_only_what_is_wrong(shell: Shell):
    make_image("a.png")
    assert shell("a.png", "-q").err == ""
    assert shell("a.png", "-q").err == ""
    Path("b.png").write_text("no image")
    assert "b.png" in shell("b.png", "-q").err


def test_verbose_prints_the_reasons(shell: Shell):
    make_image("a.png")
    assert "device cpu: " in shell("a.png", "-v").err


def test_notes_of_the_reader_are_printed(shell: Shell):
    frames = [pillow.new("L", (8, 8), value) for value in (10, 200)]
    frames[0].save("a.gif", save_all=True, append_images=frames[1:])
    outcome = shell("a.gif", "--json")
    assert "first frame" in outcome.images[0]["notes"][0]
    assert "note: first frame" in outcome.err


def test_a_preview_does_nothing_and_prints_all(shell: Shell):
    make_image("a.png")
    Path("bad.png").write_text("no image")
    outcome = shell("a.png", "bad.png", "--dry-run", "-o", "out/")
    text = outcome.out.decode()
    assert outcome.code == 1
    assert sorted(os.listdir()) == ["a.png", "bad.png"]
    for word in ("tiny on cpu", "a.png -> out/a_x4.png", "12x8 -> 48x32", "1 tile", "KiB", "about"):
        assert word in text
    assert "failed: bad.png" in text
    assert "1 to do, 1 cannot be done" in text


def test_a_preview_as_json(shell: Shell):
    make_image("a.png", mode="RGBA")
    make_image("b.png")
    shell("b.png")
    outcome = shell("a.png", "b.png", "--dry-run", "--json", "--tile", "6")
    first, second = outcome.images
    assert (first["status"], first["tiles"], first["passes"]) == ("planned", 8, 2)
    assert first["tile"] == 6
    (third,) = shell("a.png", "--dry-run", "--json", "--tile", "6", "--overlap", "2").images
    assert third["overlap"] == 2
    assert first["output_bytes"] == 48 * 32 * 4
    assert first["peak_bytes"] > first["output_bytes"]
    assert first["seconds"] >= 0
    assert second["status"] == "skipped"
    assert outcome.summary["planned"] == 1
    assert outcome.summary["fetch"] is False


def test_a_preview_fetches_nothing(shell: Shell):
    make_image("a.png")
    outcome = shell("a.png", "--dry-run", model="realesr-animevideov3")
    assert outcome.code == 0
    assert "would be downloaded (2.4 MiB)" in outcome.out.decode()
    plain = shell("a.png", "--dry-run", "--json", model="realesr-animevideov3")
    assert plain.summary["fetch"] == 2504012


def test_names_that_users_of_other_programs_type(shell: Shell, tiny: Path):
    make_image("a.png")
    outcome = shell("-i", "a.png", "--outscale", "2", "--suffix", "out", "--ext", "jpg", "--fp32")
    assert outcome.code == 0
    assert size_of("a_out.jpg") == (24, 16)
    outcome = shell(
        "a.png", "-n", tiny, "--tile_pad", "4", "-t", "8", "--alpha_upsampler", "bicubic",
        "-g", "-1", "--pre_pad", "0", "--json", "-o", "o/", model="auto",
    )  # fmt: skip
    assert outcome.images[0]["model"] == "tiny"
    assert outcome.images[0]["tile"] == 8
    assert "--pre_pad is not needed here" in outcome.err
    assert shell("a.png", "-dn", "0.5").code == 2  # understood: this model has no partner


def test_precision_of_the_alias_is_used(shell: Shell):
    make_image("a.png")
    assert shell("a.png", "--fp32", "--json").images[0]["precision"] == "fp32"


def test_the_models_own_factor_is_the_default(shell: Shell, tmp_path: Path):
    make_image("a.png")
    other = save_tiny(tmp_path / "twice.pth", scale=2)
    assert shell("a.png", model=other).code == 0
    assert size_of("a_x2.png") == (24, 16)


def test_settings_of_the_look_reach_the_images(shell: Shell):
    make_image("a.png", mode="RGBA")
    for name, options in {
        "plain": [],
        "strength": ["--strength", "0"],
        "tta": ["--tta"],
        "fix": ["--color-fix"],
    }.items():
        assert shell("a.png", "-o", f"{name}.png", *options).code == 0
    plain = np.asarray(pillow.open("plain.png"))
    for name in ("strength", "tta", "fix"):
        assert (np.asarray(pillow.open(f"{name}.png")) != plain).any()


def test_memory_that_runs_out_has_its_exit_code(shell: Shell, monkeypatch: pytest.MonkeyPatch):
    def read_image(*_: object, **__: object) -> None:
        raise MemoryError

    make_image("a.png")
    monkeypatch.setattr(pipeline, "read_image", read_image)
    outcome = shell("a.png")
    assert outcome.code == 4
    assert "not enough memory" in outcome.err


def test_an_unforeseen_error_shows_its_traceback(shell: Shell, monkeypatch: pytest.MonkeyPatch):
    def read_image(*_: object, **__: object) -> None:
        raise ZeroDivisionError("bug")

    make_image("a.png")
    monkeypatch.setattr(pipeline, "read_image", read_image)
    outcome = shell("a.png")
    assert outcome.code == 1
    assert "unexpected ZeroDivisionError: bug" in outcome.err
    assert "Traceback" in outcome.err


def test_inputs_from_a_list(shell: Shell):
    make_image("in/a.png")
    make_image("in/sub/b.png")
    Path("list.txt").write_text("in/a.png\nin/sub/b.png\nin/missing.png\n")
    outcome = shell("--from-file", "list.txt", "-o", "out/")
    assert outcome.code == 1
    assert "in/missing.png: no such file" in outcome.err
    assert "2 done, 1 failed" in outcome.err
    assert size_of("out/in/a_x4.png") == size_of("out/in/sub/b_x4.png") == (48, 32)
    outcome = shell("--from-file", "-", "-o", "out2/", stdin=b"in/a.png\0in/sub/b.png\0")
    assert outcome.code == 0
    assert sorted(p.name for p in Path("out2").rglob("*.png")) == ["a_x4.png", "b_x4.png"]


def test_lists_that_cannot_be_read(shell: Shell):
    make_image("a.png")
    for arguments, reason in (
        (["--from-file", "missing.txt"], "missing.txt: no such file"),
        (["--from-file", "."], "not a regular file"),
        (["--from-file", "/dev/null", "-o", "x/"], "/dev/null"),
        (["-", "--from-file", "-"], "standard input"),
    ):
        outcome = shell(*arguments)
        assert outcome.code == 2
        assert reason in outcome.err
