"""Recipes and settings of training: published values, strictness, overrides that go where meant."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from realesr_cli.degrade.presets import get_preset
from realesr_cli.errors import ConfigError
from realesr_cli.train.config import TrainConfig
from realesr_cli.train.recipes import (
    config_to_toml,
    describe_recipe,
    differences,
    load_config,
    per_stage,
    read_recipe,
    recipe_names,
)

WANTED = {
    "realesrnet-x4", "realesrnet-x2", "realesrnet-x1", "realesrgan-x4", "realesrgan-x2",
    "realesrgan-x1", "realesrgan-x4-unsharpened", "esrgan-psnr-x4", "esrgan-x4", "esrgan-x4-16b",
    "srgan-x4", "compact-x4", "compact-x2", "finetune", "paired", "distill",
}  # fmt: skip


def test_every_promised_recipe_is_there_and_says_what_it_is() -> None:
    assert set(recipe_names()) == WANTED
    assert all(describe_recipe(name).endswith((".", ",")) for name in WANTED)


@pytest.mark.parametrize("name", sorted(WANTED))
def test_a_printed_configuration_loads_again_to_the_same(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    assert config.recipe == name
    file = tmp_path / "again.toml"
    file.write_text(config_to_toml(config))
    assert load_config(str(file)) == config


def test_realesrgan_is_as_published() -> None:
    config = load_config("realesrgan-x4")
    net, gan = config.stages
    assert [s.iterations for s in config.stages] == [1_000_000, 400_000]
    assert (net.optimizer.lr, gan.optimizer.lr) == (2e-4, 1e-4)
    assert net.optimizer.betas == gan.optimizer.betas == (0.9, 0.99)
    assert (config.data.patch, config.data.batch) == (64, 12)
    assert config.data.crop(4, paired=False) == 400
    assert config.ema.decay == 0.999
    assert config.degradation == get_preset("realesrgan")
    assert (net.pixel.weight, net.perceptual.weight, net.gan.weight) == (1, 0, 0)
    assert (gan.pixel.weight, gan.perceptual.weight, gan.gan.weight) == (1, 1, 0.1)
    weights = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1, "conv4_4": 1, "conv5_4": 1}
    assert gan.perceptual.by_layer() == weights
    assert (gan.pixel.sharpened, gan.perceptual.sharpened, gan.gan.sharpened) == (True, True, False)
    assert (gan.gan.kind, config.discriminator.kind) == ("vanilla", "unet")
    assert (config.data.flip, config.data.rotate) == (True, False)


def test_other_scales_keep_the_ground_truth_crop() -> None:
    for scale, patch in ((4, 64), (2, 128), (1, 256)):
        config = load_config(f"realesrgan-x{scale}")
        assert (config.scale, config.data.patch) == (scale, patch)
        assert config.data.crop(scale, paired=False) == 400
        assert config.architecture.scale == scale


def test_esrgan_is_as_published() -> None:
    psnr, gan = load_config("esrgan-x4").stages
    assert (psnr.schedule.kind, psnr.schedule.period, psnr.schedule.min_lr) == (
        "cosine",
        250_000,
        1e-7,
    )
    assert gan.schedule.milestones == (50_000, 100_000, 200_000, 300_000)
    assert (gan.pixel.weight, gan.gan.weight, gan.gan.kind) == (0.01, 0.005, "ragan")
    assert gan.perceptual.by_layer() == {"conv5_4": 1.0}
    data = load_config("esrgan-x4").data
    assert (data.batch, data.patch, data.rotate) == (16, 32, True)


def test_finetuning_guards_itself() -> None:
    config = load_config("finetune")
    assert config.validation.patience > 0
    assert config.validation.best == "psnr"
    assert config.generator.init == "x4plus"


def test_names_that_scripts_rely_on() -> None:
    sets = ["generator.blocks=2", "generator.features=8", "generator.growth=4", "data.patch=16"]
    config = load_config("realesrgan-x4", sets)
    assert (config.generator.blocks, config.generator.features) == (2, 8)
    assert (config.generator.growth, config.data.patch) == (4, 16)


def test_a_setting_without_stage_goes_to_the_stages_it_concerns() -> None:
    sets = ["iterations=7", "stages.gan.iterations=9"]
    config = load_config(
        "realesrgan-x4", [*sets, "perceptual.weight=0.5", "stages.0.optimizer.lr=1"]
    )
    net, gan = config.stages
    assert (net.iterations, gan.iterations) == (7, 9)
    assert (net.perceptual.weight, gan.perceptual.weight) == (0, 0.5)
    assert (net.optimizer.lr, gan.optimizer.lr) == (1.0, 1e-4)
    only = load_config("realesrnet-x4", ["gan.weight=0.1"])
    assert only.stages[-1].gan.weight == 0.1


def test_a_preset_is_laid_below_single_settings_whatever_their_order() -> None:
    for sets in (
        ["degradation.preset=light", "degradation.usm=true"],
        ["degradation.usm=true", "degradation.preset=light"],
    ):
        config = load_config("realesrnet-x4", sets)
        assert config.degradation == dataclasses.replace(get_preset("light"), usm=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("generator.block=1", "did you mean 'blocks'"),
        ("stages.gna.iterations=1", "did you mean 'gan'"),
        ("seed.x=1", "expected int"),
        ("generator.blocks.x=1", "is not a table"),
        ("degradation.preset=realesrgam", "did you mean 'realesrgan'"),
        ("degradation=3", "expected a table"),
        ("gan.kind=gan", "one of"),
        ("data.patch=0", "patch: "),
        ("data.patch=63", "divisible by 8"),
        ("degradation.pool=100", "multiple of data.batch"),
        ("stages=[]", "at least one"),
        ("iterations=0", "at least 1 step"),
        ("data.inputs=[]", "distinct kinds"),
        ("data.inputs=['light','light']", "distinct kinds"),
        ("data.inputs=['lihgt']", "did you mean 'light'"),
        ("data.input_shares=[1,2]", "one per kind"),
    ],
)
def test_what_cannot_be_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config("realesrgan-x4", [text])


def test_contradictions_are_refused() -> None:
    for sets, message in (
        (["data.gt=['a']", "data.weights=[1.0, 2.0]"], "weights: .*got 2"),
        (["data.gt=['a']", "data.lq=['b', 'c']"], "lq: .*got 2"),
        (["perceptual.layers=['conv1_2']"], "layers and layer_weights"),
        (["stages.psnr.pixel.weight=0"], "psnr"),
        (["stages.psnr.name=gan"], "distinct names"),
        (["stages.psnr.name='1'"], "name: "),
        (["validation.lq=x"], "lq: "),
        (["discriminator.kind=vgg", "data.patch=16"], "128 or 256"),
        (["data.gt=['a']", "data.lq=['b']", "degradation.pool=12"], "degradation.pool"),
        (["validation.best=perceptual", "perceptual.weight=0"], "feat-squeeze"),
        (["scale=3"], "choices|one of|must be"),
        (["discriminator.init=d.pth", "stages.gan.gan.weight=0"], "discriminator.init"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config("realesrgan-x4", sets)


def test_recipes_extend_one_another_but_not_themselves(tmp_path: Path) -> None:
    child = tmp_path / "mine.toml"
    child.write_text('extends = "compact-x2"\nrecipe = "mine"\n[data]\nbatch = 3\n')
    config = load_config(str(child))
    assert (config.recipe, config.scale, config.data.batch) == ("mine", 2, 3)
    assert config.generator.kind == "compact"
    grandchild = tmp_path / "more.toml"
    grandchild.write_text('extends = "mine.toml"\nseed = 4\n')
    assert load_config(str(grandchild)).data.batch == 3
    child.write_text('extends = "more.toml"\n')
    with pytest.raises(ConfigError, match="extends itself"):
        load_config(str(child))
    child.write_text("extends = 3\n")
    with pytest.raises(ConfigError, match="extends: "):
        load_config(str(child))


def test_an_unknown_recipe_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'realesrgan-x4'"):
        read_recipe("realesrgan-x5")
    with pytest.raises(ConfigError, match="no such file"):
        read_recipe("nowhere.toml")


def test_one_value_for_all_stages_or_one_for_each() -> None:
    data = read_recipe("realesrgan-x4")
    config = load_config(data, (), per_stage(data, "iterations", (5,)))
    assert [s.iterations for s in config.stages] == [5, 5]
    config = load_config(data, (), per_stage(data, "optimizer.lr", (0.1, 0.2)))
    assert [s.optimizer.lr for s in config.stages] == [0.1, 0.2]
    with pytest.raises(ConfigError, match="got 3"):
        per_stage(data, "iterations", (1, 2, 3))


def test_differences_are_named_by_key() -> None:
    old = load_config("realesrgan-x4")
    new = load_config("realesrgan-x4", ["seed=3", "stages.gan.optimizer.lr=1e-5"])
    assert differences(old, old) == []
    assert differences(old, new) == ["seed: 0 -> 3", "stages.gan.optimizer.lr: 0.0001 -> 1e-05"]


def test_settings_made_in_python_are_as_strict() -> None:
    config = load_config("realesrnet-x4")
    with pytest.raises(ConfigError, match="seed"):
        dataclasses.replace(config, seed=-1)
    assert isinstance(config, TrainConfig)
