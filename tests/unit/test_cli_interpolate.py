"""`realesr models interpolate`, and `-m A:B@ALPHA`: names of results, refusals, JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from realesr_cli.cli.models import models_group
from realesr_cli.errors import ConfigError, ModelUnavailableError
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.weights import model_files
from realesr_cli.weights.load import load_model

TINY = CompactArchitecture(scale=2, convs=1, features=4)


def models(*args: str) -> Result:
    result = CliRunner().invoke(models_group, args)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(autouse=True)
def _pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two networks a.pth and b.pth in the current folder, and one of another kind."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        model_files.save_pth(tmp_path / f"{name}.pth", {"params": TINY.build().state_dict()})
    other = CompactArchitecture(scale=4, convs=1, features=4)
    model_files.save_pth(tmp_path / "other.pth", {"params": other.build().state_dict()})


def interpolate(*args: str) -> Result:
    return models("interpolate", "a.pth", "b.pth", *args)


def test_one_file() -> None:
    result = interpolate("--alpha", "0.8", "-o", "c.safetensors")
    assert result.stdout == "c.safetensors: 0.2 of a and 0.8 of b\n"
    mixed, (a, b) = load_model("c.safetensors"), map(load_model, ("a.pth", "b.pth"))
    expected = (1 - 0.8) * a.state_dict()["body.0.bias"] + 0.8 * b.state_dict()["body.0.bias"]
    assert torch.equal(mixed.state_dict()["body.0.bias"], expected)
    assert interpolate("--alpha", "0.8", "-o", "sub/d.PTH", "-q").stdout == ""
    assert "params_ema" in torch.load("sub/d.PTH", weights_only=True)


def test_several_shares_have_names_of_their_own() -> None:
    shares = ["0.29", "0.85", "0.8", "0.08", "1"]
    flags = [word for share in shares for word in ("--alpha", share)]
    interpolate(*flags, "-o", "c-{alpha}.pth")
    assert {p.name for p in Path().glob("c-*")} == {f"c-{share}.pth" for share in shares}
    result = interpolate(*flags, "-o", "mixed/", "--json")
    written = json.loads(result.stdout)["written"]
    assert [w["alpha"] for w in written] == [float(share) for share in shares]
    assert [Path(w["path"]).name for w in written] == [f"a+b@{s}.safetensors" for s in shares]
    assert all(Path(w["path"]).is_file() for w in written)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--alpha", "1.5", "-o", "c.pth"], "got 1.5"),
        (["--alpha", "-0.5", "-o", "c.pth"], "share from 0"),
        (["--alpha", "nan", "-o", "c.pth"], "share from 0"),
        (["--alpha", "0.5", "--alpha", "0.50", "-o", "mixed/"], "0.5 is given twice"),
        (["--alpha", "0.5", "--alpha", "0.6", "-o", "c.pth"], "one file for 2 shares; put {alpha}"),
        (["--alpha", "0.5", "-o", "c.onnx"], "ends in"),
        (["--alpha", "0.5", "-o", "c"], "ends in"),
        (["--alpha", "0.5", "-o", "a.pth"], "a.pth is an input"),
        (["--alpha", "0.5", "-o", "a.pth", "--overwrite"], "a.pth is an input"),
        (["--alpha", "0.5", "-o", "other.pth"], "other.pth already exists"),
        (["--alpha", "0.5", "-o", "a.pth/c.pth"], "cannot write into a.pth"),
    ],
)
def test_calls_that_cannot_be_meant(args: list[str], said: str) -> None:
    before = {name: Path(name).read_bytes() for name in os.listdir()}
    with pytest.raises(ConfigError) as caught:
        interpolate(*args)
    assert said in str(caught.value)
    assert {name: Path(name).read_bytes() for name in os.listdir()} == before


def test_networks_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match="scale is 2 against 4"):
        models("interpolate", "a.pth", "other.pth", "--alpha", "0.5", "-o", "c.pth")
    with pytest.raises(ModelUnavailableError, match="offline"):
        models("interpolate", "x4plus", "esrgan", "--alpha", "1", "-o", "c.pth", "--offline")
    assert not Path("c.pth").exists()
    assert interpolate("-o", "c.pth").exit_code == 2
    assert interpolate("--alpha", "x", "-o", "c.pth").exit_code == 2


def test_overwrite_replaces() -> None:
    interpolate("--alpha", "0.5", "-o", "other.pth", "--overwrite")
    assert load_model("other.pth").scale == 2


def test_info_names_what_a_mixture_is_made_of() -> None:
    interpolate("--alpha", "0.8", "-o", "c.safetensors")
    for model in ("c.safetensors", "a.pth:b.pth@0.8"):
        output = models("info", model).stdout
        assert "made of:    name a, share 0.2, license unknown, sha256 " in output
        assert "made of:    name b, share 0.8" in output
        assert TINY.describe() in output
    assert "file:       mixed when it is used" in output
    assert "not in the cache" in models("info", "x4plus:esrgan@0.5").stdout
