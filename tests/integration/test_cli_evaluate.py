"""`realesr evaluate` from the outside: what it prints, writes and answers."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as pillow
from upscale_cli import Outcome, save_tiny

from realesr_cli.cli.main import run
from realesr_cli.nets.features import SqueezeNetFeatures

Evaluate = Callable[..., Outcome]


@pytest.fixture
def evaluate(
    tmp_path: Path,
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> Evaluate:
    """`realesr evaluate` in a folder with ground truths in gt/ and results in made/."""
    monkeypatch.chdir(tmp_path)
    for folder in ("gt", "made"):
        (tmp_path / folder).mkdir()
        for seed, name in enumerate(("baby", "bird")):
            small = np.random.default_rng(seed).integers(0, 256, (50, 52, 3), np.uint8)
            large = pillow.fromarray(small).resize((208, 200), pillow.Resampling.BICUBIC)
            large.save(tmp_path / folder / f"{name}.png")

    def call(*arguments: object) -> Outcome:
        capfdbinary.readouterr()
        with warnings.catch_warnings(), pytest.raises(SystemExit) as ended:
            run(["evaluate", *(str(argument) for argument in arguments)])
        heard = capfdbinary.readouterr()
        assert isinstance(ended.value.code, int)
        return Outcome(ended.value.code, heard.out, heard.err.decode())

    return call


MADE = ("--gt", "gt", "--degrade", "bicubic", "--device", "cpu", "--threads", "1")


def test_a_table_of_two_models_beside_bicubic(evaluate: Evaluate, tiny: Path) -> None:
    other = save_tiny(Path("other.pth"))
    outcome = evaluate(*MADE, "-m", tiny, "-m", other, "--per-image")
    assert outcome.code == 0
    shown = [line.split()[:1] for line in outcome.out.decode().splitlines()]
    rows = [["bicubic"], ["tiny"], ["other"]]
    at = shown.index(["baby"])
    assert shown[at:] == [["baby"], *rows, ["bird"], *rows, ["mean"], *rows]
    assert b"SSIM (Y)" in outcome.out
    assert b"NIQE" in outcome.out
    assert outcome.err == ""


def test_json_and_csv_go_where_they_are_sent(evaluate: Evaluate, tiny: Path) -> None:
    outcome = evaluate(*MADE, "-m", tiny, "--metrics", "psnr-y8", "--json", "-", "--csv", "a.csv")
    assert outcome.code == 0
    found = json.loads(outcome.out)
    assert list(found["methods"]) == ["bicubic", "tiny"]
    model = found["settings"]["models"]["tiny"]
    assert (model["device"], model["precision"]) == ("cpu", "fp32")
    assert len(model["sources"][0]["sha256"]) == 64
    lines = list(csv.reader(Path("a.csv").read_text().splitlines()))
    assert lines[0] == ["image", "method", "psnr-y8"]
    mean = {line[1]: float(line[2]) for line in lines if line[0] == "mean"}
    assert mean["tiny"] == found["methods"]["tiny"]["mean"]["psnr-y8"]
    outcome = evaluate(*MADE, "-m", tiny, "--metrics", "psnr", "--csv", "-", "--json", "a.json")
    assert outcome.out.startswith(b"image,method,psnr-rgb\n")
    assert json.loads(Path("a.json").read_text())["settings"]["scale"] == 4


def test_precision_is_printed(evaluate: Evaluate, tiny: Path) -> None:
    outcome = evaluate(*MADE, "-m", tiny, "--metrics", "psnr", "--precision", "bf16")
    assert b"cpu in bf16" in outcome.out


def test_the_backend_is_passed_on(evaluate: Evaluate, tiny: Path) -> None:
    outcome = evaluate(*MADE, "-m", tiny, "--metrics", "psnr", "--backend", "torch", "--json", "-")
    assert json.loads(outcome.out)["settings"]["models"]["tiny"]["backend"] == "torch"
    outcome = evaluate(*MADE, "-m", tiny, "--metrics", "psnr", "--backend", "abacus")
    assert outcome.code == 2
    assert "abacus" in outcome.err


def test_a_folder_alone_is_scored_without_reference(evaluate: Evaluate) -> None:
    outcome = evaluate("made", "--csv", "-")
    assert outcome.code == 0
    assert outcome.out.startswith(b"image,method,niqe\nbaby,made,")


def test_finished_images_beside_others(evaluate: Evaluate) -> None:
    outcome = evaluate(*MADE[:4], "--scale", 4, "--outputs", "mine=made", "gt", "--csv", "-")
    assert outcome.code == 0
    assert b"mean,mine,inf,1.0" in outcome.out
    assert b"mean,gt,inf,1.0" in outcome.out
    twice = evaluate("made", "made")
    assert twice.code == 2
    assert "named" in twice.err
    odd = evaluate("--outputs", "made")
    assert odd.code == 2
    assert "expected NAME=FOLDER" in odd.err


def test_one_unreadable_image_among_many(evaluate: Evaluate, tiny: Path) -> None:
    Path("gt/broken.png").write_bytes(b"not an image")
    outcome = evaluate(*MADE, "-m", tiny, "--json", "-")
    assert outcome.code == 1
    assert "broken.png" in outcome.err
    assert "1 image excluded, 2 evaluated" in outcome.err
    assert list(json.loads(outcome.out)["methods"]["tiny"]["images"]) == ["baby", "bird"]


def test_models_of_different_scale(evaluate: Evaluate, tiny: Path) -> None:
    outcome = evaluate(*MADE, "-m", tiny, "-m", save_tiny(Path("two.pth"), scale=2))
    assert outcome.code == 2
    assert "tiny x4, two x2" in outcome.err


def test_empty_sets_and_sizes_that_do_not_match(evaluate: Evaluate, tiny: Path) -> None:
    Path("empty").mkdir()
    outcome = evaluate("--gt", "empty", "--degrade", "bicubic", "-m", tiny)
    assert outcome.code == 1
    assert "empty contains no files" in outcome.err
    outcome = evaluate("--gt", "gt", "--lq", "made", "-m", tiny)
    assert outcome.code == 1
    assert "sizes do not match at scale 4: baby (208x200 and 208x200)" in outcome.err


@pytest.mark.parametrize("option", ["--json", "--csv"])
def test_a_report_that_cannot_be_written_is_refused_first(
    evaluate: Evaluate, tiny: Path, option: str
) -> None:
    outcome = evaluate(*MADE, "-m", tiny, option, "none/report")
    assert (outcome.code, outcome.out) == (2, b"")
    assert "does not exist" in outcome.err
    outcome = evaluate(*MADE, "-m", tiny, option, "gt")
    assert "gt is a folder" in outcome.err
    both = evaluate(*MADE, "-m", tiny, "--json", "-", "--csv", "-")
    assert both.code == 2
    assert "both write to stdout" in both.err


def test_the_perceptual_distance_needs_no_network_with_a_named_file(
    evaluate: Evaluate, tiny: Path
) -> None:
    torch.save(SqueezeNetFeatures(("fire9",)).state_dict(), "weights.pth")
    asked = (*MADE, "-m", tiny, "--metrics", "feat-squeeze", "--offline", "--csv", "-")
    outcome = evaluate(*asked, "--feat-weights", "weights.pth")
    assert outcome.code == 0
    assert outcome.out.startswith(b"image,method,feat-squeeze\nbaby,bicubic,")
    assert evaluate(*asked, "--feat-weights", "missing.pth").code == 3


def test_lpips_without_its_package_names_the_extra(
    evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    outcome = evaluate(*MADE, "--scale", 4, "--metrics", "lpips")
    assert outcome.code == 2
    assert "pip install 'realesr-cli[lpips]'" in outcome.err


def test_the_help_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from realesr_cli.cli.main import cli\n"
        "assert CliRunner().invoke(cli, ['evaluate', '--help']).exit_code == 0\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


LONG = "x" * 5000


@pytest.mark.parametrize(
    ("arguments", "code", "fact"),
    [
        (("--gt", ""), 2, "--gt"),
        (("",), 2, "FOLDERS"),
        (("--gt", LONG, "--degrade", "bicubic", "--scale", 2), 1, "does not exist"),
        (("--gt", "gt", "--degrade", f"{LONG}.toml", "--scale", 2), 2, ".toml"),
        (("--gt", "gt", "--degrade", "fifo.toml", "--scale", 2), 2, "regular file"),
        ((*MADE[:4], "--scale", "9" * 5000), 2, "--scale"),
        ((*MADE[:4], "--scale", 2, "--crop", "9" * 5000), 2, "--crop"),
        ((*MADE[:4], "--scale", 2, "--save", LONG), 1, "too long"),
        ((*MADE[:4], "--scale", 2, "--metrics", "psnr", "--json", LONG), 1, "too long"),
        ((*MADE[:4], "--scale", 2, "--metrics", ","), 2, "metrics"),
        (("--outputs", f"a={LONG}"), 1, "does not exist"),
    ],
)
def test_odd_arguments_give_one_line(
    evaluate: Evaluate, arguments: tuple[object, ...], code: int, fact: str
) -> None:
    os.mkfifo("fifo.toml")
    outcome = evaluate(*arguments)
    assert (outcome.code, "Traceback" in outcome.err) == (code, False)
    assert fact in outcome.err


def test_odd_names_are_shown_and_written(evaluate: Evaluate) -> None:
    for name in (b"gt/two\nlines.png", b"gt/\xff.png"):
        Path(os.fsdecode(name)).write_bytes(Path("gt/baby.png").read_bytes())
    os.mkfifo("gt/fifo.png")
    plain = (*MADE[:4], "--scale", 2, "--metrics", "psnr")
    outcome = evaluate(*plain, "--per-image", "--save", "saved", "--csv", "a.csv")
    assert (outcome.code, outcome.err) == (0, "")
    shown = outcome.out.decode()
    assert "two\N{REPLACEMENT CHARACTER}lines\n" in shown
    assert "mean of 4" in shown
    assert len(list(Path("saved/bicubic").iterdir())) == 4
    assert len(list(csv.reader(Path("a.csv").read_text().splitlines(keepends=True)))) == 6
