"""The script and the recipes behind the bundled model load, and lead from one stage to the next."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from realesr_cli.train.recipes import load_config
from realesr_cli.weights import registry

FOLDER = Path(__file__).resolve().parents[2] / "models/photo"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_photo", FOLDER / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("recipe", ["1-start", "2-structure", "3-gan"])
def test_recipes_load_and_train_the_bundled_network(recipe: str) -> None:
    config = load_config(str(FOLDER / f"{recipe}.toml"))
    assert config.recipe == f"photo-{recipe}"
    entry = registry.resolve("photo")
    assert entry.architecture is not None
    assert config.generator.blocks == entry.architecture["convs"]
    assert config.generator.features == entry.architecture["features"]


def test_every_stage_starts_from_one_before_it_and_its_settings_load(script: ModuleType) -> None:
    done = ["2-structure"]
    for stage in script.STAGES:
        assert set(stage.start) <= set(done)
        assert sum(stage.start.values()) == pytest.approx(1)
        assert stage.judge in ("", *done[1:])
        config = load_config(str(FOLDER / "3-gan.toml"), stage.assignments())
        assert config.stages[-1].gan.weight > 0
        done.append(stage.name)
    assert len(set(done)) == len(done)
    assert set(script.LAST) <= set(done)
    assert sum(script.LAST.values()) == pytest.approx(1)
