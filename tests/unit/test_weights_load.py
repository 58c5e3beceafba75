"""Names, paths, run folders and `auto` open the right network, with denoising where it can be."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from realesr_cli.cli.advice import message_with_advice
from realesr_cli.errors import (
    CheckpointFormatError,
    ConfigError,
    ModelUnavailableError,
    RealesrWarning,
    UnknownModelError,
)
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.nets.rrdbnet import RRDBArchitecture
from realesr_cli.weights import import_models, model_files, registry
from realesr_cli.weights.load import load_model, open_model
from realesr_cli.weights.locate import locate

TINY = CompactArchitecture(scale=4, convs=1, features=4)


def save(path: Path, seed: int = 0, architecture: Any = TINY) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    state: dict[str, Tensor] = architecture.build().state_dict()
    model_files.save_pth(path, {"params": state})
    return state


@pytest.fixture
def official(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, dict[str, Tensor]]:
    """The real list, with small cached files in place of four of its models."""
    registry.weights_dir().mkdir(parents=True)
    names = {"x4plus": 1, "x2plus": 2, "general": 3, "general-wdn": 4}
    states, entries = {}, []
    for entry in registry.official():
        seed = next((s for n, s in names.items() if registry.resolve(n) == entry), None)
        if seed is not None:
            path = registry.cache_path(entry)
            states[entry.name] = save(path, seed)
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            entry = replace(entry, bytes=path.stat().st_size, sha256=sha256)
        entries.append(entry)
    monkeypatch.setattr(registry, "official", lambda: tuple(entries))
    return states


def first(net: torch.nn.Module) -> Tensor:
    return net.state_dict()["body.0.weight"]


def test_path_opens_the_file(tmp_path: Path) -> None:
    state = save(tmp_path / "mine.pth")
    for given in (tmp_path / "mine.pth", str(tmp_path / "mine.pth")):
        opened = open_model(given)
        assert opened.name == "mine"
        assert opened.path == tmp_path / "mine.pth"
        assert opened.entry is None
        assert opened.architecture == TINY
        assert torch.equal(first(opened.net), state["body.0.weight"])
    assert load_model(tmp_path / "mine.pth").scale == 4


@pytest.mark.parametrize(
    ("scale", "name"),
    [(None, "RealESRGAN_x4plus"), (2, "RealESRGAN_x2plus"), (3, "RealESRGAN_x4plus")],
)
def test_auto_goes_by_scale(
    official: dict[str, dict[str, Tensor]], scale: float | None, name: str
) -> None:
    opened = open_model(scale=scale, offline=True)
    assert opened.name == name
    assert opened.entry is registry.resolve(name)
    assert torch.equal(first(opened.net), official[name]["body.0.weight"])


def test_alias_opens_the_cached_file(official: dict[str, dict[str, Tensor]]) -> None:
    opened = open_model("general", offline=True)
    assert opened.path == registry.weights_dir() / "realesr-general-x4v3.pth"


def test_auto_that_cannot_be_had_names_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "bundled", lambda: None)
    with pytest.raises(ModelUnavailableError, match="RealESRGAN_x2plus") as caught:
        open_model(scale=2, offline=True)
    assert "\n" not in str(caught.value)
    assert "models pull RealESRGAN_x2plus" in message_with_advice(caught.value)


def test_bundled_model_stands_in_for_auto(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    save(tmp_path / "spare.pth")
    spare = registry.RegistryEntry(name="spare", file="spare.pth", bundled="spare.pth")
    spare = replace(spare, sha256=hashlib.sha256((tmp_path / "spare.pth").read_bytes()).hexdigest())
    listed = (*registry.official()[:2], spare)
    monkeypatch.setattr(registry, "_PACKAGE", tmp_path)
    monkeypatch.setattr(registry, "official", lambda: listed)
    with pytest.warns(RealesrWarning, match="using spare"):
        assert open_model("auto", offline=True).name == "spare"
    with pytest.raises(ModelUnavailableError):
        open_model("x4plus", offline=True)


def test_training_run_folder(tmp_path: Path) -> None:
    run = tmp_path / "my-run"
    run.mkdir()
    with pytest.raises(CheckpointFormatError, match=r"generator\.safetensors"):
        open_model(run)
    torch.manual_seed(0)
    state = TINY.build().state_dict()
    model_files.save_safetensors(
        run / "generator.safetensors", state, model_files.model_metadata(TINY)
    )
    opened = open_model(str(run))
    assert opened.name == "my-run"
    assert opened.path == run / "generator.safetensors"


def test_file_before_name_before_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkdir("anime")
    assert locate("anime").entry is registry.resolve("anime")
    with pytest.raises(CheckpointFormatError):
        locate("./anime")
    save(tmp_path / "general")
    assert locate("general").entry is None


def test_unknown_names_and_paths(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match=r"did you mean 'anime'"):
        open_model("anme")
    save(tmp_path / "mine.pth")
    with pytest.raises(UnknownModelError, match=r"no such file; did you mean 'mine.pth'"):
        open_model(tmp_path / "mime.pth")


def test_only_generators_are_opened() -> None:
    with pytest.raises(ConfigError, match="features"):
        open_model("vgg19", offline=True)
    with pytest.raises(ConfigError, match="discriminator"):
        open_model("x4plus-netd", offline=True)


@pytest.mark.parametrize("opened", ["realesr-general-x4v3", "realesr-general-wdn-x4v3"])
@pytest.mark.parametrize("denoise", [0, 0.25, 1])
def test_denoise_mixes_the_official_pair(
    official: dict[str, dict[str, Tensor]], opened: str, denoise: float
) -> None:
    net = open_model(opened, denoise=denoise, offline=True).net
    general = official["realesr-general-x4v3"]["body.0.weight"]
    weak = official["realesr-general-wdn-x4v3"]["body.0.weight"]
    torch.testing.assert_close(first(net), denoise * general + (1 - denoise) * weak)


@pytest.mark.parametrize("opened", ["my-x4v3.fp16.pth", "my-wdn-x4v3.fp16.pth"])
def test_denoise_finds_the_partner_beside_the_file(tmp_path: Path, opened: str) -> None:
    general = save(tmp_path / "my-x4v3.fp16.pth", 1)["body.0.weight"]
    weak = save(tmp_path / "my-wdn-x4v3.fp16.pth", 2)["body.0.weight"]
    net = open_model(tmp_path / opened, denoise=0.25).net
    torch.testing.assert_close(first(net), 0.25 * general + 0.75 * weak)


def test_denoise_of_an_imported_pair(tmp_path: Path) -> None:
    save(tmp_path / "my-x4v3.pth", 1)
    weak = save(tmp_path / "my-wdn-x4v3.pth", 2)["body.0.weight"]
    import_models.import_models(tmp_path)
    assert torch.equal(first(open_model("my-x4v3", denoise=0).net), weak)


def test_denoise_takes_the_registered_partner_for_a_copy(
    official: dict[str, dict[str, Tensor]], tmp_path: Path
) -> None:
    save(tmp_path / "realesr-general-x4v3.fp16.pth", 9)
    net = open_model(tmp_path / "realesr-general-x4v3.fp16.pth", denoise=0, offline=True).net
    assert torch.equal(first(net), official["realesr-general-wdn-x4v3"]["body.0.weight"])


def test_denoise_that_cannot_be(official: dict[str, dict[str, Tensor]], tmp_path: Path) -> None:
    for name in ("mine.pth", "mine-x4v3.pth", "mine-wdn-x4v3.pth"):
        folder = tmp_path / name
        folder.mkdir()
        save(folder / name)
        with pytest.raises(ConfigError, match="no weak-denoise partner"):
            open_model(folder / name, denoise=0.5)
    with pytest.raises(ConfigError, match="no weak-denoise partner"):
        open_model("x4plus", denoise=0.5, offline=True)
    for denoise in (-0.1, 1.5):
        with pytest.raises(ConfigError, match="denoise: expected 0 to 1"):
            open_model("general", denoise=denoise, offline=True)


@pytest.mark.parametrize("name", ["auto", "x4plus", "anime"])
def test_denoise_that_cannot_be_fetches_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def touched(*_: object, **__: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr("realesr_cli.weights.fetch.ensure", touched)
    monkeypatch.setenv("REALESR_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="no weak-denoise partner"):
        open_model(name, denoise=0.5)


def test_denoise_pair_of_different_networks(tmp_path: Path) -> None:
    save(tmp_path / "my-x4v3.pth")
    save(tmp_path / "my-wdn-x4v3.pth", 1, CompactArchitecture(scale=4, convs=2, features=4))
    with pytest.raises(ConfigError, match="cannot be mixed: convs is 2 against 1"):
        open_model(tmp_path / "my-x4v3.pth", denoise=0.5)


def test_a_model_that_was_located_is_opened_as_it_is(tmp_path: Path) -> None:
    state = save(tmp_path / "mine.pth")
    located = locate(tmp_path / "mine.pth")
    assert torch.equal(first(open_model(located).net), state["body.0.weight"])
    assert located.download_bytes is None
    assert locate("x4plus").download_bytes == 67_040_989


def test_models_are_located_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "my-x4v3.pth", 1)
    save(tmp_path / "my-wdn-x4v3.pth", 2)
    located = locate(tmp_path / "my-x4v3.pth", denoise=0.5)

    def again(*_: object, **__: object) -> None:
        raise AssertionError("located again")

    monkeypatch.setattr("realesr_cli.weights.load.locate", again)
    monkeypatch.setattr("realesr_cli.weights.locate._find_denoise_partner", again)
    opened = open_model(located)
    assert (opened.name, opened.path) == ("my-x4v3", tmp_path / "my-x4v3.pth")
    assert [source.share for source in opened.sources] == [0.5, 0.5]


def test_a_checkpoint_is_renamed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    usual = RRDBArchitecture.canonical_names.__func__
    architecture = RRDBArchitecture(4, 1, 4, 2)
    torch.save(architecture.build().state_dict(), tmp_path / "m.pth")

    def counted(cls: Any, names: Any) -> Any:
        calls.append(names)
        return usual(cls, names)

    monkeypatch.setattr(RRDBArchitecture, "canonical_names", classmethod(counted))
    assert open_model(tmp_path / "m.pth").architecture == architecture
    assert len(calls) <= 2  # to recognize it, and to take its tensors


@pytest.mark.parametrize("name", ["x" * 5000, "/" + "x" * 5000, "a:b@" + "9" * 5000, ":" * 5000])
def test_names_of_any_length(name: str) -> None:
    with pytest.raises((UnknownModelError, ConfigError)) as caught:
        open_model(name, offline=True)
    assert len(str(caught.value)) < 6000


@pytest.mark.parametrize("name", ["~nobody-of-this-name", "~nobody-of-this-name/m.pth"])
def test_a_home_that_does_not_exist_is_an_unknown_model(name: str) -> None:
    with pytest.raises(UnknownModelError, match="nobody-of-this-name"):
        load_model(name)
