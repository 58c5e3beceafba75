"""The table as text, JSON and CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math

import pytest

from realesr_cli.evaluate.evaluation import Evaluation, Row
from realesr_cli.evaluate.scores import METRICS
from realesr_cli.evaluate.sets import Failure
from realesr_cli.evaluate.table import WIDTH, to_csv, to_json, to_text

FACTS = {
    "gt": "Set5", "lq": None, "degrade": "bicubic", "seed": None, "scale": 4, "crop": 4,
    "models": {"net": {"device": "cpu", "precision": "fp32"}},
}  # fmt: skip


@pytest.fixture
def evaluation() -> Evaluation:
    columns = METRICS["psnr-y"], METRICS["niqe"]
    rows = (
        Row("a", "bicubic", (30.0, 7.0), {}),
        Row("a", "net", (32.5, None), {"niqe": "too small"}),
        Row("b", "bicubic", (math.inf, 5.0), {}),
        Row("b", "net", (31.5, 4.0), {}),
    )
    failures = (Failure("c", "c.png: damaged"),)
    return Evaluation(columns, ("bicubic", "net"), rows, failures, FACTS, ("a note",))


def lines(shown: str) -> list[list[str]]:
    return [line.split() for line in shown.splitlines()]


def test_means_are_shown_with_the_best_marked(evaluation: Evaluation) -> None:
    shown = lines(to_text(evaluation))
    assert ["PSNR", "(Y)", "NIQE"] in shown
    assert ["dB,", "higher", "lower"] in shown
    assert ["mean", "of", "2"] in shown
    assert ["bicubic", "inf*", "6.000"] in shown
    assert ["net", "32.000", "4.000*"] in shown
    assert ["note:", "a", "note"] in shown


def test_what_shows_the_same_digits_is_equally_good(evaluation: Evaluation) -> None:
    rows = (Row("a", "bicubic", (30.0001, 7.0), {}), Row("a", "net", (30.0002, 6.0), {}))
    shown = lines(to_text(dataclasses.replace(evaluation, rows=rows)))
    assert ["bicubic", "30.000*", "7.000"] in shown
    assert ["net", "30.000*", "6.000*"] in shown


def test_the_heading_says_how_the_numbers_were_made(evaluation: Evaluation) -> None:
    shown = to_text(evaluation)
    assert "2 images of Set5, x4\n" in shown
    assert "low-quality images: MATLAB bicubic of the ground truths\n" in shown
    assert "8-bit images, 4 border pixels excluded" in shown
    assert "cpu in fp32" in shown
    other = {**FACTS, "degrade": "realesrgan", "seed": 7, "crop": 0, "models": {}}
    shown = to_text(dataclasses.replace(evaluation, settings=other))
    assert "degradation realesrgan, seed 7\n" in shown
    assert "no border excluded" in shown
    given = to_text(dataclasses.replace(evaluation, settings={**FACTS, "lq": "small"}))
    assert "low-quality images: small\n" in given


def test_every_image_is_shown_when_asked(evaluation: Evaluation) -> None:
    shown = lines(to_text(evaluation, per_image=True))
    at = shown.index(["a"])
    assert shown[at + 1 : at + 4] == [
        ["bicubic", "30.000", "7.000*"],
        ["net", "32.500*", "-"],
        ["b"],
    ]


def test_a_wide_table_keeps_to_its_width(evaluation: Evaluation) -> None:
    columns = tuple(METRICS.values())[:6]
    name = "a very long name of a network that nobody could ever want to read in full " * 2
    rows = (Row("a" * 90, name, (1.0,) * 6, {}),)
    wide = Evaluation(columns, (name,), rows, (), FACTS)
    shown = to_text(wide).split("\n\n")[1]
    assert max(map(len, shown.splitlines())) <= WIDTH
    assert "..." in shown


def test_no_image_gives_no_table(evaluation: Evaluation) -> None:
    shown = to_text(dataclasses.replace(evaluation, rows=(), notes=()))
    assert shown.startswith("0 images of Set5")
    assert "PSNR" not in shown


def test_json_holds_everything_and_is_strict(evaluation: Evaluation) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(word)

    found = json.loads(to_json(evaluation), parse_constant=refuse)
    assert found["methods"]["bicubic"]["mean"] == {"psnr-y": "inf", "niqe": 6.0}
    assert found["methods"]["net"]["images"]["a"] == {"psnr-y": 32.5, "niqe": None}
    assert found["metrics"][0] == {
        "key": "psnr-y", "title": "PSNR (Y)", "unit": "dB", "better": "higher",
    }  # fmt: skip
    assert found["settings"]["crop"] == 4
    assert found["failures"] == [{"image": "c", "error": "c.png: damaged"}]


def test_csv_has_a_line_for_each_image_and_method(evaluation: Evaluation) -> None:
    found = list(csv.reader(io.StringIO(to_csv(evaluation))))
    assert found[0] == ["image", "method", "psnr-y", "niqe"]
    assert ["a", "net", "32.5", ""] in found
    assert ["mean", "bicubic", "inf", "6.0"] in found
    assert len(found) == 7
