"""One run in parts, on several machines or processes at once."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from upscale_cli import Shell, make_image, size_of

from realesr_cli.batch.jobs import BatchSettings, make_plan
from realesr_cli.batch.output_paths import Destination
from realesr_cli.batch.run import run_jobs
from realesr_cli.batch.sources import InputSource
from realesr_cli.image.types import Image


def double(image: Image, *_: object, **__: object) -> Image:
    """Repeat every pixel twice in both directions."""
    return image.with_pixels(image.pixels.repeat(2, 0).repeat(2, 1), None)


def test_shards_together_make_every_image_once_and_a_rerun_what_is_missing(shell: Shell):
    for index in range(7):
        make_image(f"in/{index % 2}/{index}.png")
    made: list[str] = []
    for index in range(3):
        outcome = shell("in", "-r", "-o", "out", "--shard", f"{index}/3", "--json")
        assert outcome.code == 0
        assert {image["status"] for image in outcome.images} <= {"done"}
        made += [image["input"] for image in outcome.images]
    assert len(made) == len(set(made)) == 7
    assert len(list(Path("out").rglob("*.png"))) == 7
    Path("out/1/3_x4.png").unlink()
    done = [
        image["output"]
        for index in range(3)
        for image in shell("in", "-r", "-o", "out", "--shard", f"{index}/3", "--json").images
        if image["status"] == "done"
    ]
    assert done == [str(Path("out/1/3_x4.png"))]


def test_shards_of_a_folder_do_not_take_the_results_of_others_for_inputs(shell: Shell):
    for name in "abcde":
        make_image(f"in/{name}.png")
    for _ in range(2):
        for index in range(2):
            assert shell("in", "--shard", f"{index}/2").code == 0
    assert len(list(Path("in").iterdir())) == 10


def test_a_shard_without_images_is_no_error(shell: Shell):
    make_image("a.png")
    codes = [shell("a.png", "--shard", f"{index}/9").code for index in range(9)]
    assert set(codes) == {0}
    assert size_of("a_x4.png") == (48, 32)


@pytest.mark.parametrize("shard", ["3/3", "0/0"])
def test_a_shard_that_does_not_exist(shell: Shell, shard: str):
    make_image("a.png")
    outcome = shell("a.png", "--shard", shard)
    assert outcome.code == 2
    assert shard in outcome.err


def test_a_list_with_missing_files_makes_the_others(shell: Shell):
    make_image("in/a.png")
    Path("list").write_text("in/a.png\nin/none.png\n")
    outcome = shell("--from-file", "list", "-o", "out/", "--json")
    assert outcome.code == 1
    assert {image["input"]: image["status"] for image in outcome.images} == {
        str(Path("in/a.png")): "done",
        str(Path("in/none.png")): "failed",
    }
    assert size_of("out/in/a_x4.png") == (48, 32)


def test_two_runs_on_the_same_output_at_once_leave_whole_files(tmp_path: Path):
    sources = [InputSource(make_image(tmp_path / f"in/{i}.png")) for i in range(6)]
    wanted = Destination("folder", folder=tmp_path / "out")
    plan = make_plan(sources, wanted, BatchSettings(model="fake", scale=2))
    outcomes: list[list[str]] = []

    def run() -> None:
        outcomes.append([record.status for record in run_jobs(plan.jobs, double)])

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [["done"] * 6] * 2
    assert [size_of(path) for path in (tmp_path / "out").iterdir()] == [(24, 16)] * 6
