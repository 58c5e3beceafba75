"""Cards have the fields and forms of OpenModelDB's schema, and say nothing that is not known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from realesr_cli.errors import ConfigError
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.nets.rrdbnet import RRDBArchitecture
from realesr_cli.nets.srresnet import SRResNetArchitecture
from realesr_cli.weights import model_files
from realesr_cli.weights.openmodeldb import (
    CardSettings,
    is_spdx,
    make_card,
    missing_fields,
    resource,
)
from realesr_cli.weights.provenance import inspect_model

FULL = CardSettings(
    name="Mine",
    author=("jane-doe",),
    license="CC-BY-4.0",
    description="For *photos*.",
    tag=("photo", "jpeg"),
    date="2026-02-28",
)

REQUIRED = {
    "name": str, "author": (str, list), "license": (str, type(None)), "tags": list,
    "description": str, "date": str, "architecture": str, "size": (list, type(None)), "scale": int,
    "inputChannels": int, "outputChannels": int, "resources": list, "images": list,
}  # fmt: skip
"""The obligatory fields of the schema's type `Model`."""

OPTIONAL = {"trainingIterations", "trainingBatchSize", "trainingHRSize"}


def saved(path: Path, architecture: Any, extra: dict[str, Any] | None = None) -> Path:
    torch.manual_seed(0)
    metadata = model_files.model_metadata(architecture, extra)
    model_files.save_safetensors(path, architecture.build().state_dict(), metadata)
    return path


def test_a_full_card_has_every_obligatory_field() -> None:
    card = make_card(inspect_model("general"), FULL)
    for key, kind in REQUIRED.items():
        assert isinstance(card[key], kind), key
    assert set(card) <= set(REQUIRED) | OPTIONAL
    assert missing_fields(card) == []
    assert (card["author"], card["tags"]) == ("jane-doe", ["photo", "jpeg"])
    assert json.loads(json.dumps(card)) == card


def test_what_the_list_says_of_a_known_model() -> None:
    """The entry 4x-realesrgan-x4plus of the list, as far as it is not prose."""
    card = make_card(inspect_model("x4plus"))
    assert card["license"] == "BSD-3-Clause"
    assert card["architecture"] == "esrgan"
    assert card["size"] == ["64nf", "23nb"]
    assert (card["scale"], card["inputChannels"], card["outputChannels"]) == (4, 3, 3)
    (file,) = card["resources"]
    assert (file["platform"], file["type"], file["size"]) == ("pytorch", "pth", 67040989)
    assert file["sha256"] == "4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1"
    assert file["urls"][0].endswith("v0.1.0/RealESRGAN_x4plus.pth")


def test_unknown_fields_are_left_out_or_null(tmp_path: Path) -> None:
    card = make_card(inspect_model(saved(tmp_path / "m.safetensors", CompactArchitecture(2, 3, 8))))
    assert card["license"] is None
    assert not {"author", "date", "description"} & set(card)
    assert missing_fields(card) == ["author", "license", "tags", "description", "date"]
    assert card["name"] == "m"
    (file,) = card["resources"]
    assert file["type"] == "safetensors"
    assert file["urls"] == []
    assert make_card(inspect_model("x4plus:esrgan@0.5"))["resources"] == []


@pytest.mark.parametrize(
    ("architecture", "name", "size"),
    [
        (RRDBArchitecture(4, 2, 8, 4, plus=True), "esrgan+", ["8nf", "2nb"]),
        (CompactArchitecture(2, 3, 8), "compact", ["8nf", "3nc"]),
        (SRResNetArchitecture(2, 3, 8), "sr-res-net", ["8nf", "3nb"]),
    ],
)
def test_architectures_have_their_names(
    tmp_path: Path, architecture: Any, name: str, size: list[str]
) -> None:
    card = make_card(inspect_model(saved(tmp_path / "m.safetensors", architecture)))
    assert (card["architecture"], card["size"]) == (name, size)


def test_training_of_this_package_is_reported(tmp_path: Path) -> None:
    training = {
        "data": {"batch": 12, "accumulate": 2, "patch": 64},
        "stages": [{"name": "psnr", "iterations": 1000}, {"name": "gan", "iterations": 400}],
    }
    extra = {"training": training, "stage": "gan", "step": 250, "license": "MIT"}
    card = make_card(
        inspect_model(saved(tmp_path / "m.safetensors", CompactArchitecture(4, 1, 4), extra))
    )
    assert card["trainingIterations"] == 1250
    assert (card["trainingBatchSize"], card["trainingHRSize"]) == (24, 256)
    assert card["license"] == "MIT"


def test_resources_by_kind() -> None:
    assert resource(Path("m.onnx"), 5, "ab")["platform"] == "onnx"
    assert resource(Path("m.safetensors"), 5, "ab")["type"] == "safetensors"
    assert resource(None, None, None) == {
        "platform": "pytorch",
        "type": "pth",
        "size": None,
        "sha256": None,
        "urls": [],
    }


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("MIT", True),
        ("BSD-3-Clause AND Apache-2.0", True),
        ("MIT AND (Apache-2.0 OR GPL-2.0+)", True),
        ("unknown", False),
        ("MIT AND unknown", False),
        ("MIT / Apache-2.0", False),
        ("MIT Apache-2.0", False),
        ("MIT AND", False),
        ("free for all!", False),
        ("", False),
    ],
)
def test_license_expressions(text: str, good: bool) -> None:
    assert is_spdx(text) is good


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"author": ("Jane Doe",)}, "as in jane-doe"),
        ({"author": ("é",)}, "letters, digits and single hyphens"),
        ({"tag": ("a--b",)}, "as in a-b"),
        ({"license": "do what you like"}, "SPDX"),
        ({"date": "28.2.2026"}, "YYYY-MM-DD"),
        ({"date": "2026-02-30"}, "YYYY-MM-DD"),
        ({"date": "20260228"}, "YYYY-MM-DD"),
        ({"name": " "}, "name: must not be empty"),
        ({"description": ""}, "description: must not be empty"),
    ],
)
def test_words_that_cannot_be(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        CardSettings(**fields)
