"""The script and the recipes behind the bundled model run, and make such a network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from realesr_cli.nets.grain import has_grain
from realesr_cli.train.recipes import load_config
from realesr_cli.weights import registry
from realesr_cli.weights.open import open_model

FOLDER = Path(__file__).resolve().parents[2] / "models/photo"
RECIPES = ("1-start", "2-structure", "3-grid", "4-grain", "5-grain", "6-deeper", "7-deeper")
GRAINED, DEEP = RECIPES[3:], RECIPES[5:]


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_load_and_train_the_bundled_network(recipe: str) -> None:
    config = load_config(str(FOLDER / f"{recipe}.toml"))
    assert config.recipe == f"photo-{recipe}"
    entry = registry.resolve("photo")
    assert entry.architecture is not None
    assert config.generator.blocks == (entry.architecture["convs"] if recipe in DEEP else 16)
    assert config.generator.features == entry.architecture["features"]
    assert bool(config.generator.grain) == (recipe in GRAINED)


def test_the_bundled_network_has_the_grain_of_the_last_recipe() -> None:
    assert has_grain(open_model("photo").net)


@pytest.mark.slow
def test_the_script_runs_from_photographs_to_the_file(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for number in range(2):
        coarse = torch.from_numpy(rng.random((1, 3, 60, 80), np.float32))
        soft = torch.nn.functional.interpolate(coarse, size=(1200, 1600), mode="bicubic")
        soft = soft + 0.1 * torch.from_numpy(rng.standard_normal(soft.shape, np.float32))
        pixels = (soft[0].permute(1, 2, 0).clamp(0, 1) * 255).byte().numpy()
        Image.fromarray(pixels).save(photos / f"{number}.png")
    words = [sys.executable, str(FOLDER / "make.py"), "--data", str(photos), "--out", str(out)]
    for _ in range(2):
        done = subprocess.run([*words, "--trial"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    opened = open_model(str(out / "photo.safetensors"))
    assert opened.architecture == open_model("photo").architecture
    assert has_grain(opened.net)
