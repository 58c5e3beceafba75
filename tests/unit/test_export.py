"""Exported files compute what the model does, say what they are, and land only if both hold."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from realesr_cli.engine import onnx_graph
from realesr_cli.errors import (
    ConfigError,
    ExportError,
    MissingDependencyError,
    WeightsWriteError,
)
from realesr_cli.export import exporter
from realesr_cli.export.exporter import export_model
from realesr_cli.export.onnx_file import run_onnx
from realesr_cli.export.settings import SUFFIXES, ExportSettings
from realesr_cli.nets.compact import Compact, CompactArchitecture
from realesr_cli.nets.detection import ARCHITECTURES
from realesr_cli.nets.rrdbnet import RRDBArchitecture
from realesr_cli.nets.srresnet import SRResNetArchitecture
from realesr_cli.weights import model_files
from realesr_cli.weights.checkpoints import read_state
from realesr_cli.weights.load import OpenedModel, load_model, open_model

NETWORKS = [
    RRDBArchitecture(4, 2, 6, 4),
    RRDBArchitecture(2, 1, 6, 4, unshuffle=2),
    RRDBArchitecture(1, 1, 6, 4, unshuffle=4),
    RRDBArchitecture(2, 1, 6, 4),
    RRDBArchitecture(8, 1, 6, 4, plus=True),
    CompactArchitecture(4, 2, 6),
    CompactArchitecture(1, 1, 6, "relu"),
    CompactArchitecture(3, 1, 6, "leakyrelu"),
    SRResNetArchitecture(4, 2, 6),
    SRResNetArchitecture(2, 1, 6),
]
LEAKY = CompactArchitecture(2, 1, 4, "leakyrelu")


def make(architecture: Any, seed: int = 0) -> nn.Module:
    """A network in which every weight, bias and slope matters for the output."""
    torch.manual_seed(seed)
    net: nn.Module = architecture.build().eval().requires_grad_(False)
    for tensor in net.state_dict().values():
        tensor.uniform_(-0.3, 0.3)
    return net


def saved(path: Path, architecture: Any, extra: dict[str, Any] | None = None) -> OpenedModel:
    metadata = model_files.model_metadata(architecture, extra)
    model_files.save_safetensors(path, make(architecture).state_dict(), metadata)
    return open_model(path)


@pytest.fixture
def source(tmp_path: Path) -> OpenedModel:
    """A leaky Compact network, which only its description distinguishes from one with ReLU."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    extra = {"license": "MIT", "step": 7, "recipe": "mine"}
    return saved(tmp_path / "in" / "mine.safetensors", LEAKY, extra)


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])


# --- ONNX ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", NETWORKS, ids=lambda a: a.describe())
def test_onnx_computes_the_network_at_any_size(architecture: Any, tmp_path: Path) -> None:
    net = make(architecture)
    target = tmp_path / "m.onnx"
    done = export_model(OpenedModel(net, "m", None, None), target, ExportSettings("onnx"))
    assert [(p.batch, p.height, p.width) for p in done.parity] == [
        (1, 32, 48),
        (1, 17, 23),
        (2, 24, 20),
    ]
    assert all(p.max_abs <= 1e-4 and (p.psnr is None or p.psnr > 90) for p in done.parity)
    running = session(target)
    rng = np.random.default_rng(0)
    for shape in ((1, 3, 1, 1), (3, 3, 2, 3), (1, 3, 5, 7), (2, 3, 8, 4), (1, 3, 3, 1)):
        image = rng.random(shape, dtype=np.float32)
        (found,) = running.run(None, {"input": image})
        np.testing.assert_allclose(found, net(torch.from_numpy(image)), atol=1e-4)


@pytest.mark.skipif(not importlib.util.find_spec("ncnn"), reason="the extra ncnn is missing")
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("architecture", NETWORKS, ids=lambda a: a.describe())
def test_ncnn_computes_the_network(architecture: Any, half: bool, tmp_path: Path) -> None:
    """Run by ncnn itself: input `data`, output `output`, as realesrgan-ncnn-vulkan has them."""
    import ncnn

    net = make(architecture)
    target = tmp_path / "m.param"
    settings = ExportSettings("ncnn", half=half)
    done = export_model(OpenedModel(net, "m", None, None), target, settings)
    assert done.bytes == target.stat().st_size + target.with_suffix(".bin").stat().st_size
    running = ncnn.Net()
    assert (running.load_param(str(target)), running.load_model(str(tmp_path / "m.bin"))) == (0, 0)
    assert (running.input_names(), running.output_names()) == (["data"], ["output"])
    image = np.random.default_rng(0).random((3, 12, 8), dtype=np.float32)
    extractor = running.create_extractor()
    extractor.input("data", ncnn.Mat(image).clone())
    code, found = extractor.extract("output")
    expected = net(torch.from_numpy(image)[None])[0]
    assert code == 0
    assert np.abs(np.array(found) - expected.numpy()).max() < (1e-2 if half else 1e-4) * max(
        1, float(expected.abs().max())
    )


def test_ncnn_files_that_exist_are_not_replaced(source: OpenedModel, tmp_path: Path) -> None:
    (tmp_path / "m.bin").write_text("mine")
    with pytest.raises(ConfigError, match=r"m\.bin already exists"):
        export_model(source, tmp_path / "m.param", ExportSettings("ncnn"))
    assert (tmp_path / "m.bin").read_text() == "mine"
    assert not (tmp_path / "m.param").exists()


def test_every_kind_of_network_is_among_them() -> None:
    assert set(ARCHITECTURES) == {type(one) for one in NETWORKS}


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda y: torch.sigmoid(y), "sigmoid"),
        (lambda y: torch.nn.functional.interpolate(y, size=(2, 2)), "interpolate"),
        (lambda y: torch.nn.functional.interpolate(y, scale_factor=2, mode="bicubic"), "interpo"),
        (lambda y: y.clamp(0, 1), "clamp"),
    ],
)
def test_an_operation_without_an_onnx_form_is_named(
    change: Callable[[Tensor], Tensor], name: str
) -> None:
    class Odd(Compact):
        def forward(self, x: Tensor) -> Tensor:
            return change(super().forward(x))

    with pytest.raises(ExportError, match=name):
        onnx_graph.onnx_model(Odd(LEAKY), opset=17)


@pytest.mark.parametrize("channels", [(1, 1), (1, 3), (4, 4), (4, 3), (3, 1)])
def test_other_channels_are_exported(tmp_path: Path, channels: tuple[int, int]) -> None:
    architecture = RRDBArchitecture(
        2, 1, 6, 4, unshuffle=2, in_channels=channels[0], out_channels=channels[1]
    )
    target = tmp_path / "m.onnx"
    done = export_model(
        OpenedModel(make(architecture), "m", None, None), target, ExportSettings("onnx")
    )
    assert all(p.max_abs <= 1e-4 for p in done.parity)
    running = session(target)
    assert running.get_inputs()[0].shape == ["batch", channels[0], "height", "width"]
    assert running.get_outputs()[0].shape[1] == channels[1]


@pytest.mark.parametrize("opset", [13, 16, 18, 21])
def test_opset_is_as_asked(source: OpenedModel, tmp_path: Path, opset: int) -> None:
    target = tmp_path / "m.onnx"
    done = export_model(source, target, ExportSettings("onnx", opset))
    model = onnx.load(target)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", opset)]
    assert done.opset == opset
    assert model.ir_version <= {13: 7, 16: 8, 18: 8, 21: 10}[opset]


def test_onnx_says_what_it_is(source: OpenedModel, tmp_path: Path) -> None:
    target = tmp_path / "m.onnx"
    done = export_model(source, target, ExportSettings("onnx"))
    assert (done.bytes, done.opset) == (target.stat().st_size, 17)
    assert done.sha256 == hashlib.sha256(target.read_bytes()).hexdigest()
    running = session(target)
    (given,), (result,) = running.get_inputs(), running.get_outputs()
    assert (given.name, given.shape) == ("input", ["batch", 3, "height", "width"])
    assert (result.name, result.shape) == ("output", ["batch", 3, "2*height", "2*width"])
    assert given.type == result.type == "tensor(float)"
    known = running.get_modelmeta().custom_metadata_map
    assert known["scale"] == "2"
    assert known["architecture"] == LEAKY.describe()
    assert known["license"] == "MIT"
    assert known["source"] == "mine"
    assert known["source_sha256"] == sha256_of(source)
    assert known["opset"] == "17"
    assert known["input"].startswith("float32 RGB in [0, 1]")
    assert known["tool"].startswith("realesr-cli ")
    described = json.loads(known["realesr"])
    assert described["architecture"]["activation"] == "leakyrelu"
    assert described["step"] == 7
    model = onnx.load(target)
    assert model.producer_name == "realesr-cli"
    state = source.net.state_dict()
    held = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    for name, tensor in state.items():
        assert np.array_equal(held[name], tensor), "weights are those of the checkpoint"
    assert str(tmp_path).encode() not in target.read_bytes()


def sha256_of(source: OpenedModel) -> str:
    assert source.path is not None
    return hashlib.sha256(source.path.read_bytes()).hexdigest()


@pytest.mark.parametrize("architecture", [NETWORKS[1], NETWORKS[5], NETWORKS[8]])
def test_onnx_in_fp16_keeps_its_interface(architecture: Any, tmp_path: Path) -> None:
    opened = OpenedModel(make(architecture), "m", None, None)
    done = export_model(opened, tmp_path / "h.onnx", ExportSettings("onnx", half=True))
    assert all(p.psnr is not None and 40 < p.psnr < 120 for p in done.parity)
    running = session(tmp_path / "h.onnx")
    assert running.get_inputs()[0].type == running.get_outputs()[0].type == "tensor(float)"
    weights = onnx.load(tmp_path / "h.onnx").graph.initializer
    kinds = {onnx.numpy_helper.to_array(w).dtype for w in weights if "." in w.name}
    assert kinds == {np.dtype(np.float16)}


def test_fp16_is_checked_in_fp16_arithmetic(tmp_path: Path) -> None:
    """Weights that fp16 holds exactly leave only the error of the arithmetic, as torch has it."""
    net = make(CompactArchitecture(4, 4, 16)).half().float()
    opened = OpenedModel(net, "m", None, None)
    done = export_model(opened, tmp_path / "h.onnx", ExportSettings("onnx", half=True))
    for parity, size in zip(done.parity, exporter.TRIAL_SIZES, strict=True):
        image = exporter.trial_image((size[0], 3, *size[1:]))
        exact = net(image)
        found = copy.deepcopy(net).half()(image.half()).float()
        expected = 10 * torch.log10(1 / (exact - found).double().square().mean())
        assert parity.psnr == pytest.approx(float(expected), abs=4)
        assert parity.psnr < 100


@pytest.mark.parametrize("name", ["onnx", "onnxruntime"])
def test_without_the_extra(
    source: OpenedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=rf"{name}, .*realesr-cli\[onnx\]"):
        export_model(source, tmp_path / "out" / "m.onnx", ExportSettings("onnx"))
    export_model(source, tmp_path / "out" / "m.pth", ExportSettings("pth"))
    assert os.listdir(tmp_path / "out") == ["m.pth"]


def test_a_file_that_the_runtime_refuses() -> None:
    with pytest.raises(ExportError, match=r"ONNX Runtime .* refuses"):
        run_onnx(b"no model", [])


def test_an_output_of_another_size_is_noticed(
    source: OpenedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "run_onnx", lambda data, images: list(images))
    with pytest.raises(ExportError, match=r"another image .* nothing was written"):
        export_model(source, tmp_path / "out" / "m.onnx", ExportSettings("onnx"))
    assert os.listdir(tmp_path / "out") == []


def test_a_graph_with_a_wrong_slope_is_noticed(
    source: OpenedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = onnx_graph._Graph.leaky_relu
    monkeypatch.setattr(
        onnx_graph._Graph, "leaky_relu", lambda self, x, slope: right(self, x, slope + 0.002)
    )
    (tmp_path / "out" / "m.onnx").write_bytes(b"before")
    with pytest.raises(ExportError, match=r"48x32: largest difference"):
        export_model(source, tmp_path / "out" / "m.onnx", ExportSettings("onnx"), overwrite=True)
    assert (tmp_path / "out" / "m.onnx").read_bytes() == b"before"
    with pytest.raises(ExportError):
        export_model(source, tmp_path / "out" / "new" / "m.onnx", ExportSettings("onnx"))
    assert os.listdir(tmp_path / "out") == ["m.onnx"]


# --- weights ------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", ["safetensors", "pth"])
@pytest.mark.parametrize("architecture", [NETWORKS[1], LEAKY, NETWORKS[9]])
def test_weights_come_back_as_they_were(architecture: Any, to: str, tmp_path: Path) -> None:
    opened = saved(tmp_path / "in.safetensors", architecture)
    target = tmp_path / f"out{SUFFIXES[to]}"
    done = export_model(opened, target, ExportSettings(to))
    assert all(p.max_abs == 0 and p.psnr is None for p in done.parity)
    again = load_model(target)
    assert again.architecture == architecture
    image = torch.rand(1, 3, 7, 9)
    assert torch.equal(again(image), opened.net(image))


def test_other_key_layouts_become_the_usual_one(tmp_path: Path) -> None:
    state = make(RRDBArchitecture(4, 1, 6, 4)).state_dict()
    mid = {
        name.replace("body.0.rdb", "RRDB_trunk.0.RDB")
        .replace("conv_body", "trunk_conv")
        .replace("conv_up", "upconv")
        .replace("conv_hr", "HRconv"): tensor
        for name, tensor in state.items()
    }
    torch.save(mid, tmp_path / "mid.pth")
    export_model(open_model(tmp_path / "mid.pth"), tmp_path / "new.pth", ExportSettings("pth"))
    found = torch.load(tmp_path / "new.pth", weights_only=True)
    assert found["params_ema"].keys() == state.keys()
    assert all(torch.equal(found["params_ema"][name], state[name]) for name in state)


def test_half_is_half_as_large_and_agrees(tmp_path: Path) -> None:
    opened = saved(tmp_path / "in.safetensors", CompactArchitecture(4, 2, 32))
    done = export_model(opened, tmp_path / "h.safetensors", ExportSettings("half"))
    assert done.bytes < 0.55 * (tmp_path / "in.safetensors").stat().st_size
    assert all(p.psnr is not None and p.psnr > 40 for p in done.parity)
    stored, recorded = read_state(tmp_path / "h.safetensors", as_stored=True)
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert recorded["dtype"] == "float16"


def test_half_that_cannot_hold_the_weights(
    source: OpenedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(exporter, "MIN_PSNR", 500.0)
        with pytest.raises(ExportError, match="fp16 is too coarse for it"):
            export_model(source, tmp_path / "out" / "h.safetensors", ExportSettings("half"))
    source.net.state_dict()["body.0.bias"][0] = 7e4
    for settings in (ExportSettings("half"), ExportSettings("onnx", half=True)):
        with pytest.raises(ExportError, match=r"'body.0.bias' holds 7e\+04, and fp16 ends"):
            export_model(source, tmp_path / "out" / f"h{SUFFIXES[settings.to]}", settings)
    assert os.listdir(tmp_path / "out") == []


@pytest.mark.parametrize("to", ["safetensors", "pth", "half"])
def test_what_is_known_is_kept(source: OpenedModel, tmp_path: Path, to: str) -> None:
    target = tmp_path / "out" / f"m{SUFFIXES[to]}"
    export_model(source, target, ExportSettings(to))
    _, recorded = read_state(target)
    assert (recorded["license"], recorded["step"], recorded["recipe"]) == ("MIT", 7, "mine")
    assert recorded["scale"] == 2
    assert recorded["architecture"]["kind"] == "compact"
    assert recorded["tool"].startswith("realesr-cli ")
    assert recorded["sources"] == [
        {"name": "mine", "sha256": sha256_of(source), "license": "MIT", "share": 1.0}
    ]
    again = tmp_path / "out" / "again.pth"
    export_model(open_model(target), again, ExportSettings("pth"))
    nested = read_state(again)[1]["sources"][0]
    assert nested["name"] == "m"
    assert nested["sources"] == recorded["sources"]


@pytest.mark.parametrize("known", [None, "MIT AND unknown"])
def test_a_license_can_be_given_where_none_is_known(tmp_path: Path, known: str | None) -> None:
    opened = saved(tmp_path / "m.safetensors", LEAKY, {"license": known} if known else None)
    settings = ExportSettings("onnx", license="CC-BY-4.0")
    done = export_model(opened, tmp_path / "m.onnx", settings)
    assert done.description["license"] == "CC-BY-4.0"
    assert done.description["sources"][0]["license"] == (known or "unknown")
    assert session(done.path).get_modelmeta().custom_metadata_map["license"] == "CC-BY-4.0"


def test_a_known_license_is_not_replaced(source: OpenedModel, tmp_path: Path) -> None:
    target = tmp_path / "out" / "m.pth"
    with pytest.raises(ConfigError, match="mine is under MIT"):
        export_model(source, target, ExportSettings("pth", license="Apache-2.0"))
    export_model(source, target, ExportSettings("pth", license="MIT"))


def test_mixtures_are_exported(source: OpenedModel, tmp_path: Path) -> None:
    other = tmp_path / "in" / "other.safetensors"
    model_files.save_safetensors(
        other, make(LEAKY, 1).state_dict(), model_files.model_metadata(LEAKY)
    )
    opened = open_model(f"{source.path}:{other}@0.8")
    done = export_model(opened, tmp_path / "out" / "m.onnx", ExportSettings("onnx"))
    assert done.description["alpha"] == 0.8
    assert done.description["license"] == "MIT AND unknown"
    known = session(done.path).get_modelmeta().custom_metadata_map
    assert known["source"] == "0.2 mine + 0.8 other"
    assert len(known["source_sha256"].split()) == 2


# --- what cannot be -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"to": "onxx"}, "did you mean 'onnx'"),
        ({"to": "onnx", "opset": 12}, "got 12"),
        ({"to": "onnx", "opset": 22}, "got 22"),
        ({"to": "pth", "opset": 17}, "opset: for onnx only"),
        ({"to": "pth", "half": True}, "half: for onnx and ncnn only"),
        ({"to": "pth", "license": "unknown"}, "SPDX"),
    ],
)
def test_settings_that_cannot_be(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ExportSettings(**fields)


@pytest.mark.parametrize(
    ("name", "to", "said"),
    [
        ("m.pth", "onnx", "ends in .onnx for onnx"),
        ("m.onnx", "half", "ends in .safetensors for half"),
        ("m", "pth", "ends in .pth for pth"),
        ("there.pth", "pth", "there.pth already exists"),
        ("folder.pth", "pth", "is a folder"),
    ],
)
def test_targets_that_cannot_be(
    source: OpenedModel, tmp_path: Path, name: str, to: str, said: str
) -> None:
    folder = tmp_path / "out"
    (folder / "there.pth").write_bytes(b"before")
    (folder / "folder.pth").mkdir()
    with pytest.raises(ConfigError) as caught:
        export_model(source, folder / name, ExportSettings(to))
    assert said in str(caught.value)
    assert (folder / "there.pth").read_bytes() == b"before"
    assert len(os.listdir(folder)) == 2


@pytest.mark.parametrize("to", list(SUFFIXES))
def test_a_folder_that_cannot_be_written(
    source: OpenedModel, tmp_path: Path, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if to == "ncnn":
        pytest.importorskip("ncnn", reason="the extra ncnn is missing")
    (tmp_path / "file").touch()
    with pytest.raises(WeightsWriteError, match=r"cannot be written: (File|Not)"):
        export_model(source, tmp_path / "file" / f"m{SUFFIXES[to]}", ExportSettings(to))

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("realesr_cli.atomic.os.fsync", full)
    for folder in (tmp_path / "out", tmp_path / "out" / "new" / "deep"):
        target = folder / f"m{SUFFIXES[to]}"
        with pytest.raises(WeightsWriteError, match=rf"{target}: .*cannot be written: No space"):
            export_model(source, target, ExportSettings(to))
    assert os.listdir(tmp_path / "out") == []


def test_trial_images_are_the_same_every_time_and_not_plain() -> None:
    for batch, *size in exporter.TRIAL_SIZES:
        shape = (batch, 3, *size)
        image = exporter.trial_image(shape)
        assert image.shape == shape
        assert torch.equal(image, exporter.trial_image(shape))
        assert 0 <= image.min() < 0.1 < 0.7 < image.max() <= 1
        assert not torch.equal(image[:, 0], image[:, 1])
