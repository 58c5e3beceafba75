"""Settings of degradations: strictness, presets, tables from TOML."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from realesr_cli.degrade import config as C
from realesr_cli.degrade.presets import DESCRIPTIONS, PRESETS, from_table, preset
from realesr_cli.errors import ConfigError
from realesr_cli.settings import from_plain, to_plain


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_plain_data(name: str) -> None:
    assert from_plain(C.DegradationConfig, to_plain(preset(name))) == preset(name)


def test_every_preset_is_described() -> None:
    assert set(DESCRIPTIONS) == set(PRESETS)


def test_unknown_preset() -> None:
    with pytest.raises(ConfigError, match="did you mean 'realesrgan'"):
        preset("realesr-gan")


def test_table_on_top_of_a_preset() -> None:
    ours = from_table({"preset": "realesrgan", "usm": False, "final": {"sinc": 0.1}})
    assert ours.stages == preset("realesrgan").stages
    assert (ours.usm, ours.final.sinc, ours.final.jpeg_last) == (False, 0.1, 0.5)


def test_table_alone() -> None:
    ours = from_table({"stages": [{"blur": {"sigma": [0.5, 1]}}, {}]})
    assert [stage.blur.sigma for stage in ours.stages] == [(0.5, 1.0), (0.2, 3.0)]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"preset": "lite"}, "did you mean 'light'"),
        ({"preset": 3}, "expected the name"),
        ({"preset": "light", "finl": {}}, "did you mean 'final'"),
        ({"stages": [{"blurr": {}}]}, "did you mean 'blur'"),
        ({"stages": [{"resize": {"up": -1}}]}, "up: "),
    ],
)
def test_wrong_tables(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_table(table)


ZERO = dict.fromkeys(
    ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"), 0.0
)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: C.KernelWeights(**ZERO), "at least one kind"),
        (lambda: C.Blur(sigma=(2.0, 1.0)), "lower end comes first"),
        (lambda: C.Blur(sizes=(7, 8)), "all odd"),
        (lambda: C.Blur(sizes=()), "all odd"),
        (lambda: C.Blur(beta_draw="half"), "beta_draw"),
        (lambda: C.Resize(up=0, down=0, keep=0), "weight above 0"),
        (lambda: C.Resize(scale=(1.1, 1.5)), "1 must lie within"),
        (lambda: C.Resize(scale=(0.1, 0.5)), "1 must lie within"),
        (lambda: C.Resize(modes=()), "at least one"),
        (lambda: C.Noise(sigma=(5.0, 1.0)), "lower end"),
        (lambda: C.Jpeg(quality=(0.0, 90.0)), "quality: "),
        (lambda: C.Final(modes=()), "at least one"),
        (lambda: C.Final(sinc_sizes=(4,)), "all odd"),
        (lambda: C.Shuffled(sizes=(4,)), "all odd"),
        (lambda: C.Shuffled(modes=()), "at least one"),
        (lambda: C.Shuffled(gray=0.9, correlated=0.2), "more than 1 together"),
        (lambda: C.DegradationConfig((C.Stage(),), shuffled=C.Shuffled()), "one or the other"),
        (lambda: C.DegradationConfig(shuffled=C.Shuffled(), compatible=True), "no such version"),
    ],
)
def test_settings_that_cannot_be(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
