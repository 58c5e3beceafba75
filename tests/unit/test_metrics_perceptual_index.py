"""The perceptual index, the luma it is measured on, and files of scores made elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from realesr_cli.errors import ConfigError
from realesr_cli.metrics.perceptual_index import assigned, perceptual_index, read_ma_scores, rmse
from realesr_cli.metrics.reference import whole_luma


def test_the_index_of_the_challenge() -> None:
    assert perceptual_index(8.5, 2.5) == pytest.approx(2.0)
    with pytest.raises(ValueError, match="between 0 and 10"):
        perceptual_index(10.5, 2.5)


def test_rmse_is_on_rounded_luma_without_the_border() -> None:
    a = torch.zeros(3, 20, 20)
    b = a.clone()
    b[:, 4:-4, 4:-4] = 10 / 255  # Luma 16 + 219 * 10 / 255 = 24.588, rounded 25.
    b[:, 0] = 1
    assert rmse(a, b) == pytest.approx(9.0)
    assert rmse(a, a) == 0
    assert rmse(a, b, crop=0) > 9


def test_luma_is_rounded_as_matlab_does() -> None:
    assert (whole_luma(torch.full((3, 1, 1), 10 / 255)) * 255).item() == pytest.approx(25.0)
    assert (whole_luma(torch.ones(1, 1, 2, 2)) * 255).flatten().tolist() == pytest.approx([235] * 4)


@pytest.mark.parametrize(
    "text",
    ["baby.png,7.5\nbird,8", "image,ma\nbaby,7.5\n\nbird.png, 8\n", "\ufeffbaby,7.5\r\nbird,8"],
)
def test_scores_of_a_csv(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ma.csv"
    path.write_text(text, encoding="utf-8")
    assert read_ma_scores(path).of("") == {"baby": 7.5, "bird": 8.0}


def test_scores_by_method(tmp_path: Path) -> None:
    path = tmp_path / "ma.csv"
    path.write_text("method,image,ma\na,x,7\nb,x,8\n")
    other = tmp_path / "ma.json"
    other.write_text(json.dumps({"a": {"x": 7}, "b": {"x.png": 8}}))
    dotted = tmp_path / "dotted.json"
    dotted.write_text(json.dumps({"v1.5": 8}))
    assert read_ma_scores(dotted).of("") == {"v1.5": 8.0}
    for scores in (read_ma_scores(path), read_ma_scores(other)):
        assert scores.scores == {"a": {"x": 7.0}, "b": {"x": 8.0}}
        assert scores.of("c") is None


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "x,11", "between 0 and 10"),
        ("a.csv", "x,nan", "between 0 and 10"),
        ("a.csv", "x,3\ny,good", "no score"),
        ("a.csv", "x,3\nx.png,4", "two different scores"),
        ("a.csv", "x,3\n5", "expected image,score"),
        ("a.csv", "", "no score in it"),
        ("a.json", "[1]", "expected an object"),
        ("a.json", "{", "a.json"),
        ("a.json", '{"x": null}', "no score"),
    ],
)
def test_what_is_no_file_of_scores_is_refused(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_ma_scores(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.csv"):
        read_ma_scores(tmp_path / "none.csv")


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "ma.csv"
    path.write_text(text)
    return path


def test_scores_without_a_method_belong_to_the_only_one(tmp_path: Path) -> None:
    scores = read_ma_scores(written(tmp_path, "x,7\ny,8\n"))
    assert assigned(scores, ["mine"], ["x", "y"]).of("mine") == {"x": 7.0, "y": 8.0}
    with pytest.raises(ConfigError, match="whose images"):
        assigned(scores, ["mine", "yours"], ["x", "y"])


def test_every_image_needs_a_score(tmp_path: Path) -> None:
    scores = read_ma_scores(written(tmp_path, "a,x,7\n"))
    assert assigned(scores, ["a", "b"], ["x"]).of("b") is None
    with pytest.raises(ConfigError, match="no score of a for y, z"):
        assigned(scores, ["a"], ["x", "y", "z"])
    with pytest.raises(ConfigError, match="a is no row of this table"):
        assigned(scores, ["aa"], ["x"])
