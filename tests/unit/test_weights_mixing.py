"""Mixtures: how they are read, refused and recorded, and that a file and `A:B@ALPHA` agree."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from realesr_cli import upscale
from realesr_cli.engine.settings import EngineSettings
from realesr_cli.errors import (
    ConfigError,
    ModelUnavailableError,
    UnknownModelError,
    WeightsWriteError,
)
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.nets.rrdbnet import RRDBArchitecture
from realesr_cli.weights import import_models, model_files, registry
from realesr_cli.weights.checkpoints import read_state
from realesr_cli.weights.load import load_model, open_model, open_pair, save_mixture
from realesr_cli.weights.locate import (
    Mixture,
    alpha_label,
    locate,
    locate_mixture,
    parse_mixture,
    require_same_architecture,
)
from realesr_cli.weights.provenance import inspect_model, merge_licenses

TINY = CompactArchitecture(scale=4, convs=1, features=4)
CPU = EngineSettings("cpu", threads=1)


def save(path: Path, seed: int = 0, architecture: Any = TINY, half: bool = False) -> Path:
    torch.manual_seed(seed)
    state = architecture.build().state_dict()
    if half:
        state = {name: tensor.half() for name, tensor in state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    model_files.save_pth(path, {"params": state})
    return path


def mixture(first: Path, second: Path, alpha: float) -> Mixture:
    found = locate_mixture(first, second, alpha).mixture
    assert found is not None
    return found


def write(first: Path, second: Path, alpha: float, target: Path) -> Path:
    mix = mixture(first, second, alpha)
    save_mixture(open_pair(mix), mix, target)
    return target


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert tensor.dtype == expected[name].dtype, name
        assert torch.equal(tensor, expected[name]), name


# --- how a mixture is written -------------------------------------------------------------------

KNOWN = {"a", "b", "x:y", "C:\\a.pth", "D:/b.pth", "me@2x.pth"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:b@0.8", ("a", "b", 0.8)),
        ("a:b@0", ("a", "b", 0)),
        ("a:b@1", ("a", "b", 1)),
        ("a:b@.25", ("a", "b", 0.25)),
        ("x:y:a@0.5", ("x:y", "a", 0.5)),
        ("a:x:y@0.5", ("a", "x:y", 0.5)),
        ("C:\\a.pth:D:/b.pth@0.5", ("C:\\a.pth", "D:/b.pth", 0.5)),
        ("a:me@2x.pth@0.5", ("a", "me@2x.pth", 0.5)),
        ("me@2x.pth:a@0.5", ("me@2x.pth", "a", 0.5)),
        ("a:unknown@0.5", ("a", "unknown", 0.5)),
        ("C:\\none.pth:a@0.5", ("C:\\none.pth", "a", 0.5)),
        ("C:\\none.pth:D:\\none.pth@0.5", ("C:\\none.pth", "D:\\none.pth", 0.5)),
    ],
)
def test_what_is_a_mixture(text: str, expected: tuple[str, str, float]) -> None:
    found = parse_mixture(text, KNOWN.__contains__)
    assert found is not None
    assert found == expected


@pytest.mark.parametrize(
    "text",
    ["a", "a@0.5", "a:b", "C:\\x.pth", "C:\\x@0.5", "C:\\me@home.pth", "u:v@w", ":b@0.5", "a:@0.5"],
)
def test_what_is_no_mixture(text: str) -> None:
    assert parse_mixture(text, {"C:\\me@home.pth"}.__contains__) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a:b@2", "got 2"),
        ("a:b@-0.1", "share from 0"),
        ("a:b@nan", "share from 0"),
        ("a:b@inf", "share from 0"),
        ("a:b@half", "'half' is not a number"),
        ("a:b@", "'' is not a number"),
        ("a:b", "two models without a share"),
    ],
)
def test_mixtures_that_cannot_be_meant(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_mixture(text, KNOWN.__contains__)


def test_a_text_of_two_meanings_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"x and y:a or x:y and a"):
        parse_mixture("x:y:a@0.5", {"x", "y:a", "x:y", "a"}.__contains__)


@given(st.floats(0, 1))
def test_labels_are_exact(alpha: float) -> None:
    label = alpha_label(alpha)
    assert float(label) == alpha
    assert set(label) <= set("0123456789.")


@pytest.mark.parametrize(
    ("alpha", "label"),
    [(0, "0"), (1, "1"), (0.29, "0.29"), (0.85, "0.85"), (0.8, "0.8"), (1e-7, "0.0000001")],
)
def test_labels_are_short(alpha: float, label: str) -> None:
    assert alpha_label(alpha) == label


# --- finding ------------------------------------------------------------------------------------


def test_an_existing_file_folder_or_name_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "a")
    save(tmp_path / "b", 1)
    located = locate("a:b@0.5")
    assert located.mixture is not None
    assert located.name == "a+b@0.5"
    import_models.import_file(save(tmp_path / "c.pth", 2), name="a:b@0.5")
    assert locate("a:b@0.5").entry == registry.find("a:b@0.5")
    assert locate("a:b@0.5").mixture is None
    (tmp_path / "a:b@0.25").mkdir()
    (tmp_path / "a:b@0.25" / "generator.safetensors").touch()
    assert locate("a:b@0.25").mixture is None
    save(tmp_path / "a:b@0.5")
    assert locate("a:b@0.5").path == Path("a:b@0.5")
    assert locate(Path("a:b@0.5")).path == Path("a:b@0.5")
    with pytest.raises(UnknownModelError, match="no such file"):
        locate(Path("a:b@0.75"))


def test_parts_may_be_names_paths_folders_and_auto(tmp_path: Path) -> None:
    located = locate("x4plus:realesrnet@0.8")
    assert located.name == "RealESRGAN_x4plus+RealESRNet_x4plus@0.8"
    assert located.path is None
    assert locate("auto:esrgan@0.5").parts[0].name == "RealESRGAN_x4plus"
    assert locate(f"{save(tmp_path / 'a@2x.pth')}:x4plus@0.5").parts[0].name == "a@2x"


def test_parts_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match="did you mean 'x4plus'"):
        locate("x4plsu:esrgan@0.5")
    with pytest.raises(UnknownModelError, match="did you mean 'ESRGAN'"):
        locate("x4plus:esrgn@0.5")
    path = save(tmp_path / "mine.pth")
    with pytest.raises(UnknownModelError, match=r"no such file; did you mean 'mine\.pth'"):
        locate(f"{path}:{tmp_path / 'mime.pth'}@0.5")


def test_what_the_registry_knows_is_refused_before_a_fetch() -> None:
    with pytest.raises(ConfigError, match="blocks is 23 against 6"):
        open_model("x4plus:anime@0.5")
    with pytest.raises(ConfigError, match="vgg19"):
        open_model("x4plus:vgg19@0.5")
    with pytest.raises(ModelUnavailableError, match="offline"):
        open_model("x4plus:realesrnet@0.5", offline=True)


def test_mixtures_are_of_two(tmp_path: Path) -> None:
    save(tmp_path / "a.pth")
    with pytest.raises(ConfigError, match="is a mixture already, and only two"):
        locate_mixture(f"{tmp_path}/a.pth:{tmp_path}/a.pth@0.5", tmp_path / "a.pth", 0.5)
    with pytest.raises(ConfigError, match="denoise is for a single model"):
        open_model(f"{tmp_path}/a.pth:{tmp_path}/a.pth@0.5", denoise=0.5)


# --- mixing -------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*has the same tensors")
@pytest.mark.parametrize(
    ("second", "said"),
    [
        (RRDBArchitecture(4, 1, 4, 2), "kind is compact against rrdb"),
        (CompactArchitecture(2, 1, 4), "scale is 4 against 2"),
        (CompactArchitecture(4, 3, 4), "convs is 1 against 3"),
        (CompactArchitecture(4, 1, 8), "features is 4 against 8"),
        (CompactArchitecture(4, 1, 4, "relu"), "activation is prelu against relu"),
    ],
)
def test_the_first_difference_is_named(second: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"A and B cannot be mixed: {said}"):
        require_same_architecture(TINY, second, ("A", "B"))
    first, other = save(tmp_path / "a.pth"), save(tmp_path / "b.pth", 1, second)
    with pytest.raises(ConfigError, match=said):
        open_model(f"{first}:{other}@0.5")
    with pytest.raises(ConfigError, match=said):
        inspect_model(f"{first}:{other}@0.5")


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_the_ends_are_exact_in_their_own_format(tmp_path: Path, ending: str, half: bool) -> None:
    first, second = save(tmp_path / "a.pth", 1, half=half), save(tmp_path / "b.pth", 2)
    for alpha, end in ((0, first), (1, second)):
        target = write(first, second, alpha, tmp_path / f"{alpha}{ending}")
        stored, _ = read_state(target, as_stored=True)
        assert_same(stored, read_state(end, as_stored=True)[0])
    assert read_state(first, as_stored=True)[0]["body.0.weight"].dtype == (
        torch.float16 if half else torch.float32
    )


def test_between_the_ends_it_is_the_formula(tmp_path: Path) -> None:
    first, second = save(tmp_path / "a.pth", 1), save(tmp_path / "b.pth", 2)
    found, _ = read_state(write(first, second, 0.29, tmp_path / "c.safetensors"))
    a, b = read_state(first)[0], read_state(second)[0]
    assert_same(found, {name: (1 - 0.29) * a[name] + 0.29 * b[name] for name in a})


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_mixing_on_the_fly_equals_the_file(tmp_path: Path, ending: str) -> None:
    first, second = save(tmp_path / "a.pth", 1), save(tmp_path / "b.pth", 2, half=True)
    target = write(first, second, 0.8, tmp_path / f"c{ending}")
    text = f"{first}:{second}@0.8"
    assert_same(load_model(text).state_dict(), load_model(target).state_dict())
    image = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    by_text = upscale(image, model=text, engine=CPU)
    assert np.array_equal(by_text, upscale(image, model=target, engine=CPU))
    assert not np.array_equal(by_text, upscale(image, model=first, engine=CPU))


def test_a_part_that_changed_is_read_again(tmp_path: Path) -> None:
    first, second = save(tmp_path / "a.pth", 1), save(tmp_path / "b.pth", 2)
    text = f"{first}:{second}@0.5"
    image = np.full((4, 4, 3), 90, np.uint8)
    before = upscale(image, model=text, engine=CPU)
    save(second, 3)
    os.utime(second, ns=(1, 1))
    assert not np.array_equal(before, upscale(image, model=text, engine=CPU))


# --- what is recorded ---------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_sources_licenses_and_share_are_recorded(tmp_path: Path, ending: str) -> None:
    leaky = CompactArchitecture(2, 1, 4, "leakyrelu")
    for name, license in (("a", "MIT"), ("b", "Apache-2.0")):
        torch.manual_seed(ord(name))
        metadata = model_files.model_metadata(leaky, {"license": license, "step": 7})
        model_files.save_safetensors(
            tmp_path / f"{name}.safetensors", leaky.build().state_dict(), metadata
        )
    paths = [tmp_path / f"{name}.safetensors" for name in "ab"]
    target = write(*paths, 0.8, tmp_path / f"c{ending}")
    _, recorded = read_state(target)
    assert recorded["alpha"] == 0.8
    assert recorded["scale"] == 2
    assert recorded["architecture"]["activation"] == "leakyrelu"
    assert recorded["license"] == "MIT AND Apache-2.0"
    assert recorded["tool"].startswith("realesr-cli ")
    assert "step" not in recorded, "no training made this mixture"
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    assert [s["sha256"] for s in recorded["sources"]] == hashes
    assert [s["share"] for s in recorded["sources"]] == [0.2, 0.8]
    assert load_model(target).architecture == leaky, "the tensors alone cannot tell"
    info = inspect_model(target)
    assert info.license == "MIT AND Apache-2.0"
    assert info.recorded["sources"] == recorded["sources"]
    again = write(target, target, 0.5, tmp_path / "d.pth")
    nested = read_state(again)[1]["sources"]
    assert nested[0]["sources"] == recorded["sources"]


def test_info_of_a_mixture(tmp_path: Path) -> None:
    info = inspect_model("x4plus:esrgan@0.8")
    assert info.about == "A mixture: 0.2 of RealESRGAN_x4plus and 0.8 of ESRGAN."
    assert info.license == "BSD-3-Clause AND Apache-2.0"
    assert (info.cached, info.path, info.scale) == (False, None, 4)
    first, second = save(tmp_path / "a.pth", 1), save(tmp_path / "b.pth", 2)
    info = inspect_model(f"{first}:{second}@0.5")
    assert info.cached
    assert info.description == TINY.describe()
    assert [s["share"] for s in info.recorded["sources"]] == [0.5, 0.5]


def test_licenses_of_a_mixture() -> None:
    assert merge_licenses(["MIT", "MIT"]) == "MIT"
    assert merge_licenses(["MIT", "MIT / Apache-2.0"]) == "MIT AND (MIT / Apache-2.0)"


def test_a_pth_with_a_damaged_description(tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    torch.save({"params_ema": TINY.build().state_dict(), "realesr": "{"}, path)
    with pytest.raises(ValueError, match="damaged description"):
        read_state(path)


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    first = save(tmp_path / "a.pth")
    (tmp_path / "file").touch()
    with pytest.raises(WeightsWriteError, match="cannot be written"):
        write(first, first, 0.5, tmp_path / "file" / "sub" / "c.pth")
    with pytest.raises(ConfigError, match=r"ends in \.safetensors or \.pth"):
        write(first, first, 0.5, tmp_path / "c.onnx")
    assert sorted(os.listdir(tmp_path)) == ["a.pth", "file"]
