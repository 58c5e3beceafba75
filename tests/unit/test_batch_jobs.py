"""The plan of a run: what becomes what, what is refused before any work, what is done already."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as pillow

from realesr_cli.batch.jobs import BatchPlan, BatchSettings, Job, has_size, make_plan
from realesr_cli.batch.made_by import MadeBy, ModelIdentity, find_differences, parse_made_by
from realesr_cli.batch.output_paths import parse_output
from realesr_cli.batch.sources import InputSource, find_sources
from realesr_cli.engine.settings import EngineSettings, UpscaleSettings
from realesr_cli.errors import (
    ConfigError,
    ImageTooLargeError,
    OutputExistsError,
    UnreadableImageError,
    UnsupportedImageError,
)
from realesr_cli.image.formats import WriteSettings
from realesr_cli.image.types import Image
from realesr_cli.image.write import write_image
from realesr_cli.progress import Progress, no_progress


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _image(path: Path | str, width: int = 6, height: int = 4) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    pillow.new("RGB", (width, height), (9, 8, 7)).save(path)


MODELS = ((ModelIdentity("model", "ab" * 32),),)


def _result(job: Job, **changed: object) -> Path:
    """Write the result of a job, or one with another record."""
    assert job.target is not None
    assert job.made_by is not None
    job.target.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((job.out_height, job.out_width, 3), np.uint8)
    text = replace(job.made_by, **changed).to_text()
    write_image(Image(pixels, made_by=text), job.target, job.write)
    return job.target


def _plan(
    *arguments: str,
    output: str | None = None,
    recursive: bool = False,
    format: str | None = None,
    progress: Progress = no_progress,
    **rules: object,
) -> BatchPlan:
    sources = find_sources(arguments, recursive=recursive)
    wanted = parse_output(output, sources, format=format)
    settings = BatchSettings("model", 4, identities=MODELS, **rules)  # type: ignore[arg-type]
    return make_plan(sources, wanted, settings, progress=progress)


def _targets(plan: BatchPlan) -> list[str]:
    return [job.target.as_posix() for job in plan.jobs if job.target is not None]


def test_sizes_names_and_formats_of_results(here: Path):
    _image("a.png")
    _image("b.jpg", 5, 3)
    first, second = _plan("a.png", "b.jpg").jobs
    assert (first.out_height, first.out_width, first.write.format) == (16, 24, "png")
    assert (second.out_height, second.out_width, second.write.format) == (12, 20, "jpg")
    assert (first.pixel_bytes, first.output_bytes) == (3, 16 * 24 * 3)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (UpscaleSettings(scale=2.5), "a_x2.5.png"),
        (UpscaleSettings(width=24), "a_x4.png"),
        (UpscaleSettings(max_side=8), "a_x1.33.png"),
        (UpscaleSettings(), "a_x4.png"),
    ],
)
def test_the_factor_in_the_name_is_the_one_asked_or_the_one_that_results(
    here: Path, settings: UpscaleSettings, name: str
):
    _image("a.png")
    assert _targets(_plan("a.png", upscale=settings)) == [name]


def test_which_settings_speak_of_pixels():
    assert not has_size(UpscaleSettings(scale=3))
    assert has_size(UpscaleSettings(height=3))
    assert has_size(UpscaleSettings(fit=(3, 4)))


def test_an_image_that_cannot_be_read_keeps_its_reason(here: Path):
    Path("a.png").write_text("no image")
    Path("empty.png").write_bytes(b"")
    _image("b.png")
    plan = _plan("a.png", "empty.png", "b.png")
    assert [type(job.error) for job in plan.jobs] == [
        UnreadableImageError,
        UnreadableImageError,
        type(None),
    ]
    assert "contains text" in str(plan.jobs[0].error)
    assert [job.source.stem for job in plan.pending] == ["b"]


def test_a_bomb_is_refused_by_its_header(here: Path):
    _image("a.png", 100, 100)
    (job,) = _plan("a.png", max_pixels=9_999).jobs
    assert isinstance(job.error, ImageTooLargeError)


def test_a_result_too_large_for_its_format_is_refused_before_any_work(here: Path):
    _image("a.jpg", 5000, 1)
    _image("b.webp", 4096, 1)
    plan = _plan("a.jpg", "b.webp", upscale=UpscaleSettings(scale=16))
    for job, limit in zip(plan.jobs, ("65,535", "16,383"), strict=True):
        assert isinstance(job.error, ImageTooLargeError)
        assert limit in str(job.error)


def test_a_format_that_contradicts_the_settings_is_refused_before_any_work(here: Path):
    _image("a.jpg")
    with pytest.raises(ConfigError, match=r"a_x4\.jpg: jpg .*lossless"):
        _plan("a.jpg", write=WriteSettings(lossless=True))


def test_an_extension_that_cannot_be_written_is_refused(here: Path):
    _image("a.gif")
    (job,) = _plan("a.gif", output="{parent}-{name}").jobs
    assert isinstance(job.error, UnsupportedImageError)
    assert job.error.advice == "choose-format"


def test_two_inputs_with_one_output_are_refused_and_named(here: Path):
    _image("x/a.png")
    _image("y/a.png")
    with pytest.raises(ConfigError, match=r"same output:\n  x/a.png and y/a.png -> out/a_x4.png"):
        _plan("x/a.png", "y/a.png", output="out/")
    _image("a.gif")
    _image("a.bmp")
    with pytest.raises(ConfigError, match="same output"):
        _plan("a.gif", "a.bmp", output="{stem}.png")
    assert len(_targets(_plan("x/a.png", "y/a.png", output="{parent}-{stem}{ext}"))) == 2


def test_a_long_list_of_clashes_is_cut(here: Path):
    for i in range(9):
        _image(f"{i}/a.png")
    with pytest.raises(ConfigError, match="and 3 more"):
        _plan(*(f"{i}/a.png" for i in range(9)), output="out/")


def test_clashes_through_a_linked_folder_are_seen(here: Path):
    _image("a.png")
    _image("b.png")
    (here / "real").mkdir()
    os.symlink(here / "real", here / "link")
    sources = [
        InputSource(Path("a.png"), below=Path("real")),
        InputSource(Path("b.png"), below=Path("link")),
    ]
    wanted = parse_output("./{width}.png", sources)
    with pytest.raises(ConfigError, match="same output"):
        make_plan(sources, wanted, BatchSettings("model", 4))


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
def test_an_input_is_never_an_output(here: Path, link: object):
    _image("a.png")
    output = "a.png"
    if callable(link):
        link(here / "a.png", here / "b.png")
        output = "b.png"
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match="an input would be overwritten"):
            _plan("a.png", output=output, overwrite=overwrite)


def test_the_output_of_one_may_not_be_another_input_by_link(here: Path):
    _image("a.png")
    _image("b.png")
    os.symlink(here / "b.png", here / "a_x4.png")
    with pytest.raises(ConfigError, match="is the input b"):
        _plan("a.png", "b.png")


def test_a_folder_in_the_place_of_an_output_is_refused(here: Path):
    _image("a.png")
    (here / "a_x4.png").mkdir()
    with pytest.raises(ConfigError, match=r"a_x4\.png"):
        _plan("a.png")


def test_a_folder_that_cannot_be_written_to_is_refused(here: Path, monkeypatch: pytest.MonkeyPatch):
    _image("a.png")
    Path("file").write_text("")
    with pytest.raises(ConfigError, match="file/sub"):
        _plan("a.png", output="file/sub/")

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", denied)
    with pytest.raises(ConfigError, match="out: Permission denied"):
        _plan("a.png", output="out/")


def test_planning_makes_no_folder(here: Path):
    _image("a.png")
    _plan("a.png", output="out/deep/")
    assert [p.name for p in here.iterdir()] == ["a.png"]


def test_a_finished_result_is_found_and_a_damaged_one_made_again(here: Path):
    for name in "abcd":
        _image(f"{name}.png")
    first, second, *_ = _plan("a.png", "b.png", "c.png", "d.png").jobs
    _result(first)
    path = _result(second)
    path.write_bytes(path.read_bytes()[:-20])
    Path("c_x4.png").write_bytes(b"")
    heard: list[tuple[int, int]] = []
    plan = _plan("a.png", "b.png", "c.png", "d.png", progress=lambda *now: heard.append(now))
    assert [job.finished for job in plan.jobs] == [True, False, False, False]
    assert [job.error for job in plan.jobs] == [None] * 4
    assert heard[-1] == (3, 3)
    again = _plan("a.png", "b.png", overwrite=True)
    assert not any(job.finished for job in again.jobs)


@pytest.mark.parametrize("format", ["png", "jpg", "webp", "tiff", "avif"])
def test_a_truncated_result_of_ours_is_made_again_in_any_format(here: Path, format: str):
    _image("a.png", 60, 40)
    (job,) = _plan("a.png", format=format).jobs
    path = _result(job)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - len(whole) // 8])
    (job,) = _plan("a.png", format=format).jobs
    if format in ("tiff", "webp"):  # Without its end, where the record is, it is nobody's.
        assert isinstance(job.error, OutputExistsError)
    else:
        assert job.pending


@pytest.mark.parametrize("content", [b"precious notes", b"\0\0\0\x18ftypheic" + bytes(99)])
def test_a_file_that_is_no_image_of_ours_is_not_replaced(here: Path, content: bytes):
    _image("a.png")
    Path("a_x4.png").write_bytes(content)
    (job,) = _plan("a.png").jobs
    assert isinstance(job.error, OutputExistsError)
    assert job.error.advice == "overwrite-or-rename"
    (job,) = _plan("a.png", overwrite=True).jobs
    assert job.pending


def test_a_truncated_image_of_somebody_else_is_not_replaced(here: Path):
    _image("a.png")
    _image("a_x4.png", 24, 16)
    Path("a_x4.png").write_bytes(Path("a_x4.png").read_bytes()[:-20])
    (job,) = _plan("a.png").jobs
    assert isinstance(job.error, OutputExistsError)


def test_an_image_of_the_right_size_without_a_record_is_not_taken_for_a_result(here: Path):
    _image("a.png")
    _image("a_x4.png", 24, 16)
    (job,) = _plan("a.png").jobs
    assert isinstance(job.error, OutputExistsError)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"models": ((ModelIdentity("other", "cd" * 32),),)}, "model other instead of model"),
        ({"models": ((ModelIdentity("model", "cd" * 32),),)}, "another version of model"),
        ({"models": (*MODELS, *MODELS)}, "model and model"),
        ({"settings": {"strength": 0.5}}, "strength 0.5 instead of default"),
        ({"settings": {"from a later version": [1]}}, "from a later version"),
    ],
)
def test_results_made_in_another_way_are_not_taken_for_finished(
    here: Path, changed: dict[str, object], words: str
):
    _image("a.png")
    (job,) = _plan("a.png").jobs
    _result(job, **changed)
    (job,) = _plan("a.png").jobs
    assert isinstance(job.error, OutputExistsError)
    assert words in str(job.error)


def test_a_result_of_an_input_that_was_edited_is_not_taken_for_finished(here: Path):
    _image("a.png")
    (job,) = _plan("a.png").jobs
    _result(job)
    assert _plan("a.png").jobs[0].finished
    with Path("a.png").open("ab") as file:
        file.write(b"more")
    (job,) = _plan("a.png").jobs
    assert isinstance(job.error, OutputExistsError)
    assert "another version of its input" in str(job.error)


@pytest.mark.parametrize(
    "changed",
    [
        {"upscale": UpscaleSettings(strength=0.5)},
        {"upscale": UpscaleSettings(tta=True)},
        {"upscale": UpscaleSettings(alpha="keep")},
        {"engine": EngineSettings(precision="fp32")},
        {"engine": EngineSettings(overlap=3)},
        {"write": WriteSettings(quality=50)},
        {"write": WriteSettings(max_bytes=5000)},
    ],
)
def test_every_setting_that_changes_pixels_is_in_the_record(here: Path, changed: dict):
    _image("a.jpg")
    (job,) = _plan("a.jpg").jobs
    _result(job)
    (job,) = _plan("a.jpg", **changed).jobs
    assert isinstance(job.error, OutputExistsError)
    assert next(iter(changed.values())) is not None


@pytest.mark.parametrize(
    "changed",
    [
        {"upscale": UpscaleSettings(scale=4)},
        {"upscale": UpscaleSettings(width=24)},
        {"engine": EngineSettings(device="cuda", tile=64, batch=2, threads=1)},
        {"write": WriteSettings(compress_level=9)},
        {"write": WriteSettings(quality=95)},
    ],
)
def test_what_changes_no_pixels_is_not_in_the_record(here: Path, changed: dict):
    _image("a.jpg")
    (job,) = _plan("a.jpg").jobs
    _result(job)
    (job,) = _plan("a.jpg", output="a_x4.jpg", **changed).jobs
    assert job.finished


@pytest.mark.parametrize(
    "rules", [{"format": "bmp"}, {"write": WriteSettings(strip_metadata=True)}]
)
def test_results_that_hold_no_record_are_known_by_size_and_date(here: Path, rules: dict):
    _image("a.png")
    (job,) = _plan("a.png", **rules).jobs
    path = _result(job)
    assert _plan("a.png", **rules).jobs[0].finished
    os.utime(path, (1, 1))
    (job,) = _plan("a.png", **rules).jobs
    assert isinstance(job.error, OutputExistsError)
    assert "older than its input" in str(job.error)


def test_a_record_that_nobody_wrote_is_none():
    for text in (
        None,
        "",
        "x",
        "[]",
        "{}",
        '{"models": 3}',
        "[" * 100_000,
        "9" * 70_000,
        '"\\ud800"',
    ):
        assert parse_made_by(text) is None
    record = MadeBy(MODELS, {"strength": 0.5, "fit": [1, 2]})
    assert parse_made_by(record.to_text()) == record
    assert find_differences(record, record) == []


def test_results_of_an_earlier_run_beside_the_inputs_are_excluded(here: Path):
    _image("in/a.png")
    _image("in/b.jpg")
    before = _plan("in")
    for job in before.jobs:
        _result(job)
    after = _plan("in")
    assert [job.source.name for job in after.jobs] == [job.source.name for job in before.jobs]
    assert all(job.finished for job in after.jobs)
    assert sorted(s.stem for s in after.excluded) == ["a_x4", "b_x4"]


def test_results_with_another_factor_or_asked_for_alone(here: Path):
    _image("in/a.png")
    _image("in/a_x4.png", 24, 16)
    other = _plan("in", upscale=UpscaleSettings(scale=2))
    assert _targets(other) == ["in/a_x2.png"]
    assert _targets(_plan("in/a_x4.png")) == ["in/a_x4_x4.png"]
    assert _targets(_plan("in", output="out/")) == ["out/a_x4.png", "out/a_x4_x4.png"]


def test_results_of_a_template_are_excluded_too(here: Path):
    _image("in/a.png")
    _result(_plan("in", output="in/{stem} big.png").jobs[0])
    plan = _plan("in", output="in/{stem} big.png")
    assert [job.source.name for job in plan.jobs] == [str(Path("in/a.png"))]
    assert plan.jobs[0].finished


def test_results_in_the_input_folder_named_as_output_are_excluded(here: Path):
    _image("in/a.png")
    _image("in/a_x2.png", 12, 8)
    assert _targets(_plan("in", output="in/")) == ["in/a_x4.png"]


def test_an_original_that_looks_like_a_result_is_not_replaced(here: Path):
    _image("in/a.png")
    _image("in/a_x4.png", 99, 99)
    (job,) = _plan("in").jobs
    assert "99x99 pixels instead of 24x16" in str(job.error)
    (job,) = _plan("in", overwrite=True).jobs
    assert job.error is None


def test_another_image_at_the_output_is_not_replaced(here: Path):
    """`-o` may name an image that has nothing to do with this one."""
    _image("in/a.png")
    _image("holiday.png", 99, 99)
    (job,) = _plan("in/a.png", output="holiday.png").jobs
    assert "holiday.png" in str(job.error)
    assert job.error.advice == "overwrite-or-rename"
    (job,) = _plan("in/a.png", output="holiday.png", overwrite=True).jobs
    assert job.error is None


def test_the_tree_is_mirrored(here: Path):
    _image("in/a.png")
    _image("in/s/t/a.png")
    plan = _plan("in", output="out", recursive=True)
    assert _targets(plan) == ["out/a_x4.png", "out/s/t/a_x4.png"]


def test_standard_input_to_standard_output(here: Path):
    _image("a.png")
    sources = find_sources(["-"], stdin=Path("a.png").read_bytes())
    (job,) = make_plan(sources, parse_output("-", sources), BatchSettings("model", 4)).jobs
    assert (job.target, job.write.format, job.out_width) == (None, "png", 24)
