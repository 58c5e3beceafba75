"""Settings of degradations: strictness, presets, tables from TOML."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from realesr_cli.degrade import config as C
from realesr_cli.degrade.presets import DESCRIPTIONS, PRESETS, get_preset, parse_degradation
from realesr_cli.errors import ConfigError
from realesr_cli.settings import from_plain, to_plain


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_plain_data(name: str) -> None:
    assert from_plain(C.DegradationConfig, to_plain(get_preset(name))) == get_preset(name)


def test_every_preset_is_described() -> None:
    assert set(DESCRIPTIONS) == set(PRESETS)


def test_unknown_preset() -> None:
    with pytest.raises(ConfigError, match="did you mean 'realesrgan'"):
        get_preset("realesr-gan")


def test_table_on_top_of_a_preset() -> None:
    ours = parse_degradation({"preset": "realesrgan", "usm": False, "final": {"sinc": 0.1}})
    assert ours.stages == get_preset("realesrgan").stages
    assert (ours.usm, ours.final.sinc, ours.final.jpeg_last) == (False, 0.1, 0.5)


def test_table_alone() -> None:
    ours = parse_degradation({"stages": [{"blur": {"sigma": [0.5, 1]}}, {}]})
    assert [stage.blur.sigma for stage in ours.stages] == [(0.5, 1.0), (0.2, 3.0)]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"preset": "lite"}, "did you mean 'light'"),
        ({"preset": 3}, "preset = 3"),
        ({"preset": "light", "finl": {}}, "did you mean 'final'"),
        ({"stages": [{"blurr": {}}]}, "did you mean 'blur'"),
        ({"stages": [{"resize": {"up": -1}}]}, "up: "),
    ],
)
def test_wrong_tables(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_degradation(table)


ZERO = dict.fromkeys(
    ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"), 0.0
)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: C.KernelWeights(**ZERO), "kernels"),
        (lambda: C.Blur(sigma=(2.0, 1.0)), r"sigma = \[2, 1\]"),
        (lambda: C.Blur(sizes=(7, 8)), "sizes"),
        (lambda: C.Blur(sizes=()), "sizes"),
        (lambda: C.Blur(beta_sampling="half"), "beta_sampling"),
        (lambda: C.Resize(up=0, down=0, keep=0), "up, down, keep"),
        (lambda: C.Resize(scale=(1.1, 1.5)), "scale = "),
        (lambda: C.Resize(scale=(0.1, 0.5)), "scale = "),
        (lambda: C.Resize(modes=()), "modes"),
        (lambda: C.Noise(sigma=(5.0, 1.0)), "sigma"),
        (lambda: C.Jpeg(quality=(0.0, 90.0)), "quality: "),
        (lambda: C.Final(modes=()), "modes"),
        (lambda: C.Final(sinc_sizes=(4,)), "sinc_sizes"),
        (lambda: C.Shuffled(sizes=(4,)), "sizes"),
        (lambda: C.Shuffled(modes=()), "modes"),
        (lambda: C.Shuffled(gray=0.9, correlated=0.2), "1.1"),
        (lambda: C.DegradationConfig((C.Stage(),), shuffled=C.Shuffled()), "shuffled and stages"),
        (lambda: C.DegradationConfig(shuffled=C.Shuffled(), compatible=True), "compatible"),
    ],
)
def test_settings_that_cannot_be(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
