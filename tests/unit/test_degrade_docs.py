"""The page about degradation: its examples are valid and its images are there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from realesr_cli.degrade.presets import PRESETS, parse_degradation


@pytest.fixture
def page(root: Path) -> str:
    return (root / "docs" / "degradation.md").read_text(encoding="utf-8")


def test_toml_examples_are_degradations(page: str) -> None:
    examples = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert len(examples) == 2
    for text in examples:
        parse_degradation(tomllib.loads(text))


def test_images_are_there_and_all_are_shown(page: str, root: Path) -> None:
    shown = set(re.findall(r"\]\(images/([\w.-]+)\)", page))
    there = {path.name for path in (root / "docs" / "images").glob("degradation-*")}
    assert shown == there


def test_every_preset_is_in_the_table(page: str) -> None:
    for name in PRESETS:
        assert f"| `{name}` |" in page
