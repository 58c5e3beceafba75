"""Recipes as data: nothing is lost in JSON, and nothing unknown is accepted."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from realesr_cli.degrade.degradation import sample_batch
from realesr_cli.degrade.presets import PRESETS
from realesr_cli.degrade.recipe import (
    Compress,
    GaussianNoise,
    Recipe,
    Round,
    Scale,
    recipes_from_plain,
    recipes_to_plain,
)
from realesr_cli.errors import ConfigError


@pytest.mark.parametrize("name", PRESETS)
def test_json_keeps_every_bit(name: str) -> None:
    rng = np.random.default_rng(8)
    recipes = sample_batch(PRESETS[name], rng, 40, scale=4, size=(64, 72))
    assert recipes_from_plain(json.loads(json.dumps(recipes_to_plain(recipes)))) == recipes


def plain() -> dict[str, Any]:
    return Recipe(2, 8, 10, (Scale(4, 5, "area"), Compress(50.0), Round())).to_plain()


def broken(key: str, value: Any, index: int | None = None) -> str:
    recipe = plain()
    (recipe if index is None else recipe["operations"][index])[key] = value
    return json.dumps({"format": 1, "recipes": [recipe]})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "expected an object"),
        ('{"format": 1, "recipes": 3}', "expected an object"),
        ('{"format": 2, "recipes": []}', "got 2"),
        ('{"format": 1, "recipes": []}', "empty"),
        ('{"format": 1, "recipes": [1]}', "every recipe"),
        (broken("operations", None), "list of operations"),
        (broken("scale", 0), "scale: "),
        (broken("scale", 16), "too small for scale 16"),
        (broken("hight", 3), "did you mean 'height'"),
        (broken("op", "jpegg", 1), "did you mean 'jpeg'"),
        (broken("op", 7, 1), "key op"),
        (broken("quality", 0, 1), r"operations\[1\].quality: "),
        (broken("mode", "cubic", 0), "did you mean 'bicubic'"),
        (broken("radius", 3, 2), "unknown setting"),
    ],
)
def test_broken_recipes(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipes_from_plain(json.loads(text))


def test_matrix_of_correlated_noise_has_nine_numbers() -> None:
    with pytest.raises(ConfigError, match="got 2"):
        GaussianNoise(1.0, False, 1, (1.0, 2.0))


def test_sizes() -> None:
    assert Recipe(4, 30, 41, ()).lq_size == (7, 10)
