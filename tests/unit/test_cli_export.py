"""`realesr export` and `realesr models card`: what they write, tell and refuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner, Result

from realesr_cli.cli.export import export_command
from realesr_cli.cli.model_info import card_command
from realesr_cli.errors import (
    ConfigError,
    MissingDependencyError,
    ModelUnavailableError,
    UnknownModelError,
    WeightsWriteError,
)
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.weights import model_files, registry
from realesr_cli.weights.load import load_model

TINY = CompactArchitecture(scale=2, convs=1, features=4)


def call(command: click.Command, *args: str) -> Result:
    result = CliRunner().invoke(command, args)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def export(*args: str) -> Result:
    return call(export_command, *args)


@pytest.fixture(autouse=True)
def _models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks in the current folder: mine.pth, and a pair of which one keeps the noise."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("mine", "my-x4v3", "my-wdn-x4v3")):
        torch.manual_seed(seed)
        model_files.save_pth(tmp_path / f"{name}.pth", {"params": TINY.build().state_dict()})


def test_every_form() -> None:
    for to, name in (
        ("onnx", "mine.onnx"),
        ("safetensors", "mine.safetensors"),
        ("half", "h.safetensors"),
        ("pth", "new/mine.pth"),
    ):
        where = {"half": ["-o", "h.safetensors"], "pth": ["-o", "new/"]}.get(to, [])
        lines = export("mine.pth", "--to", to, *where).stdout.splitlines()
        assert lines[0].startswith(f"{Path(name)}: {TINY.describe()}, float")
        assert "of mine (sha256 " in lines[1]
        assert "license unknown" in lines[1]
        assert [line.split(":")[0] for line in lines[2:]] == [
            "  48x32",
            "  23x17",
            "  2 images of 20x24",
        ]
        same = "equal" if to in ("safetensors", "pth") else "PSNR"
        assert all(same in line for line in lines[2:])
        assert Path(name).is_file()
    assert "opset 13" in export("mine.pth", "--to", "onnx", "--opset", "13", "--overwrite").stdout


def test_json() -> None:
    done = json.loads(export("mine.pth", "--to", "onnx", "--json").stdout)
    assert (done["path"], done["to"], done["opset"]) == ("mine.onnx", "onnx", 17)
    assert len(done["parity"]) == 3
    assert done["description"]["sources"][0]["name"] == "mine"
    assert export("mine.pth", "--to", "pth", "-o", "q.pth", "-q").stdout == ""


def test_mixtures_and_denoise() -> None:
    export("my-wdn-x4v3.pth:my-x4v3.pth@0.25", "--to", "safetensors", "-o", "a.safetensors")
    export("my-x4v3.pth", "--denoise", "0.25", "--to", "safetensors", "-o", "b.safetensors")
    a, b = (load_model(f"{name}.safetensors").state_dict() for name in "ab")
    assert all(torch.equal(a[name], b[name]) for name in a)
    with pytest.raises(ConfigError, match="no weak-denoise partner"):
        export("mine.pth", "--denoise", "0.25", "--to", "pth", "-o", "c.pth")


def test_a_license_for_a_model_that_states_none() -> None:
    result = export("mine.pth", "--to", "pth", "-o", "out.pth", "--license", "MIT", "--card")
    assert "license MIT" in result.stdout
    assert json.loads(Path("out.json").read_text(encoding="utf-8"))["license"] == "MIT"
    export("out.pth", "--to", "half", "--license", "MIT")
    with pytest.raises(ConfigError, match=r"out is under MIT"):
        export("out.pth", "--to", "onnx", "-o", "new/", "--license", "Apache-2.0")
    assert not Path("new").exists()


def test_card_beside_the_export() -> None:
    words = ["--author", "jane-doe", "--tag", "photo,text", "--tag", "anime"]
    result = export("mine.pth", "--to", "onnx", "--card", *words)
    card = json.loads(Path("mine.json").read_text(encoding="utf-8"))
    assert (card["author"], card["architecture"]) == ("jane-doe", "compact")
    assert card["tags"] == ["photo", "text", "anime"]
    (file,) = card["resources"]
    assert (file["type"], file["size"]) == ("onnx", Path("mine.onnx").stat().st_size)
    assert "lacks license, description, date" in result.stderr
    with pytest.raises(ConfigError, match=r"mine\.json already exists"):
        export("mine.pth", "--to", "safetensors", "--card")
    assert not Path("mine.safetensors").exists()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--to", "onnx", "-o", "m.pth"], "ends in .onnx"),
        (["--to", "pth", "-o", "m"], "ends in .pth"),
        (["--to", "pth"], "mine.pth"),
        (["--to", "pth", "--overwrite"], "mine.pth is an input"),
        (["--to", "pth", "-o", "my-x4v3.pth"], "already exists"),
        (["--to", "onnx", "-o", "mine.pth/m.onnx"], "cannot write into mine.pth"),
        (["--to", "pth", "-o", "m.pth", "--opset", "17"], "opset: for onnx only"),
        (["--to", "half", "--half"], "half: for onnx and ncnn only"),
        (["--to", "onnx", "--author", "jane"], "--author is for a card"),
        (["--to", "onnx", "--license", "free for all"], "SPDX"),
        (["--to", "onnx", "--card", "--author", "Jane Doe"], "as in jane-doe"),
    ],
)
def test_calls_that_cannot_be_meant(args: list[str], said: str) -> None:
    before = {name: Path(name).read_bytes() for name in os.listdir()}
    with pytest.raises(ConfigError) as caught:
        export("mine.pth", *args)
    assert said in str(caught.value)
    assert {name: Path(name).read_bytes() for name in os.listdir()} == before


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "Missing option '--to'"),
        (["--to", "tflite"], "'tflite'"),
        (["--to", "onnx", "--opset", "12"], "at least 13"),
        (["--to", "onnx", "--opset", "99"], "13 to 21"),
        (["--to", "onnx", "--opset", "17.5"], "'17.5'"),
        (["--to", "onnx", "--opset", "new"], "'new'"),
        (["--to", "onnx", "--denoise", "2"], "0 to 1"),
    ],
)
def test_options_that_cannot_be(args: list[str], said: str) -> None:
    result = export("mine.pth", *args)
    assert result.exit_code == 2
    assert said in result.stderr or said.replace("at least 13", "13 to 21") in result.stderr
    assert len(os.listdir()) == 3


def test_models_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownModelError, match="did you mean 'x4plus'"):
        export("x4plsu", "--to", "onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match="onnxruntime"):
        export("x4plus", "--to", "onnx")  # reported before 67 MB are fetched


def test_auto_is_never_the_model_that_stands_in_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    spare = registry.RegistryEntry(name="spare", file="spare.pth", bundled="spare.pth")
    monkeypatch.setattr(registry, "bundled", lambda: spare)
    with pytest.raises(ModelUnavailableError, match="RealESRGAN_x4plus"):
        export("auto", "--to", "pth", "--offline")


def test_card_of_a_model() -> None:
    result = call(card_command, "mine.pth", "--name", "Mine", "--date", "2026-02-28")
    card = json.loads(result.stdout)
    assert (card["name"], card["date"], card["scale"]) == ("Mine", "2026-02-28", 2)
    assert "--author, --license, --tag, --description" in result.stderr
    assert (
        call(card_command, "mine.pth", "-o", "cards/2x-Mine.json").stdout == "cards/2x-Mine.json\n"
    )
    assert json.loads(Path("cards/2x-Mine.json").read_text(encoding="utf-8"))["name"] == "mine"


def test_cards_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("there.json").write_text("before")
    for args, said in (
        (["mine.pth", "-o", "there.json"], "already exists"),
        (["mine.pth", "-o", "card.txt"], r"ends in \.json"),
        (["mine.pth", "-o", "mine.pth/card.json"], "cannot write into"),
        (["vgg19"], "vgg19"),
    ):
        with pytest.raises(ConfigError, match=said):
            call(card_command, *args)
    assert Path("there.json").read_text() == "before"

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("realesr_cli.atomic.os.fsync", full)
    with pytest.raises(WeightsWriteError, match=r"c\.json: cannot be written: No space"):
        call(card_command, "mine.pth", "-o", "c.json")
    assert not Path("c.json").exists()


def test_help_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from realesr_cli.cli.main import cli\n"
        "for words in ('export', 'models interpolate', 'models card'):\n"
        "    result = CliRunner().invoke(cli, [*words.split(), '-h'])\n"
        "    assert result.exit_code == 0, result.output\n"
        "print(sorted({'torch', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
