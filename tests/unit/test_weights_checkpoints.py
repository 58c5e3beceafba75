"""Foreign files are refused with what they are; nothing in a file runs or takes long."""

from __future__ import annotations

import json
import os
import pickle
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import safetensors.torch
import torch

from realesr_cli.errors import (
    CheckpointFormatError,
    UnknownArchitectureError,
    UnknownModelError,
)
from realesr_cli.nets.architecture import Architecture
from realesr_cli.nets.compact import Compact, CompactArchitecture
from realesr_cli.nets.rrdbnet import RRDBArchitecture
from realesr_cli.nets.srresnet import SRResNetArchitecture
from realesr_cli.weights.checkpoints import find_format, read_state
from realesr_cli.weights.load import load_model

FOREIGN = {
    "empty": (b"", "empty"),
    "text": (b"hello there, this is not a model\n", "text \\('hello there"),
    "html": (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "LFS"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(50), "PNG image"),
    "jpeg": (b"\xff\xd8\xff\xe0" + bytes(50), "JPEG image"),
    "ncnn": (b"7767517\n999 999\n", "ncnn"),
    "pickle": (b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00.", "pickled Python objects"),
    "tar": (b"x" * 257 + b"ustar\x0000" + bytes(300), "tar archive"),
    "noise": (bytes([1, 200, 3, 255, 0, 7, 9, 130] * 20), "unknown format"),
    "cut zip": (b"PK\x03\x04" + bytes(100), "truncated or damaged"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_what_is_found_is_said(tmp_path: Path, what: str) -> None:
    data, said = FOREIGN[what]
    path = tmp_path / "model.pth"
    path.write_bytes(data)
    with pytest.raises(CheckpointFormatError, match=said) as caught:
        find_format(path)
    assert str(path) in str(caught.value)


def test_onnx_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08\x07\x12\x07pytorch\xff" + bytes(50))
    with pytest.raises(CheckpointFormatError, match="ONNX"):
        find_format(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match="no such file"):
        find_format(tmp_path / "none.pth")
    with pytest.raises(CheckpointFormatError, match="a folder"):
        find_format(tmp_path)


def test_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(b"x")

    def refuse(self: Path, mode: str = "r") -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CheckpointFormatError, match="Permission denied"):
        find_format(path)


def test_zip_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/model.pth", b"x")
    with pytest.raises(CheckpointFormatError, match=r"weights/model\.pth"):
        find_format(path)


def test_torchscript_is_known(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", b"x")
        archive.writestr("m/constants.pkl", b"x")
        archive.writestr("m/code/__torch__.py", b"x")
    assert find_format(path) == "torchscript"


def test_zip_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/data.pkl", b"x")
        archive.writestr("m/data/0", bytes(8 << 20))
    with pytest.raises(CheckpointFormatError, match=r"8\.0 MiB"):
        find_format(path)


def test_what_torch_writes_is_known(tmp_path: Path) -> None:
    state = {"a": torch.zeros(3)}
    torch.save(state, tmp_path / "new.pth")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert find_format(tmp_path / "new.pth") == "zip"
    assert find_format(tmp_path / "old.pth") == "legacy"


# --- TorchScript --------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _torchscript_without_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize(
    "architecture",
    [CompactArchitecture(2, 2, 4), RRDBArchitecture(2, 1, 4, 4, 2), SRResNetArchitecture(2, 1, 4)],
    ids=lambda a: a.kind,
)
@pytest.mark.parametrize("how", ["trace", "script"])
def test_torchscript_archives_give_their_tensors(
    tmp_path: Path, architecture: Architecture, how: str
) -> None:
    torch.manual_seed(0)
    net = architecture.build().eval()
    if how == "trace":
        script = torch.jit.trace(net, torch.rand(1, 3, 8, 8))
    elif isinstance(net, Compact):
        script = torch.jit.script(net.body)
    else:
        pytest.skip("its code is more than TorchScript understands")
    script.save(tmp_path / "m.pt")
    state, metadata = read_state(tmp_path / "m.pt")
    assert metadata == {}
    expected = net.state_dict() if how == "trace" else net.body.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    if how == "trace":
        x = torch.rand(1, 3, 5, 6)
        assert torch.equal(load_model(tmp_path / "m.pt")(x), net(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_torchscript_of_any_float(tmp_path: Path, dtype: torch.dtype) -> None:
    net = torch.nn.Conv2d(3, 4, 3).to(dtype)
    torch.jit.script(net).save(tmp_path / "m.pt")
    stored, _ = read_state(tmp_path / "m.pt", as_stored=True)
    assert torch.equal(stored["weight"], net.weight)
    assert read_state(tmp_path / "m.pt")[0]["bias"].dtype == torch.float32


class Loud(torch.nn.Module):
    """Fails wherever its code runs, also when it is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))

    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, bool]:
        return self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
        assert len(state) == 5, "the code of the archive runs"
        self.weight = state[0]
        self.training = state[1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


def test_code_of_an_archive_is_not_run(tmp_path: Path) -> None:
    torch.jit.script(Loud()).save(tmp_path / "m.pt")
    with pytest.raises(Exception, match="code of the archive runs"):
        torch.jit.load(tmp_path / "m.pt")
    with suppress(CheckpointFormatError):
        read_state(tmp_path / "m.pt")


class Call:
    def __init__(self, function: object, *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


def archive(path: Path, root: object, **files: bytes) -> Path:
    """Write what looks like a TorchScript archive, with any pickle in it."""
    with zipfile.ZipFile(path, "w") as target:
        target.writestr("m/data.pkl", root if isinstance(root, bytes) else pickle.dumps(root, 2))
        target.writestr("m/constants.pkl", pickle.dumps((), 2))
        for name, data in files.items():
            target.writestr(f"m/data/{name.strip('_')}", data)
    return path


@pytest.mark.parametrize(
    "root",
    [
        Call(os.mkdir, "made"), Call(eval, "1"), Call(getattr, "a", "b"), {"a": 1}, 7, b"", b"x",
        b"\x80\x02(" + b"(" * 100_000, b"\x80\x02r\xff\xff\xff\xff.",
        b"\x80\x02X\xff\xff\xff\x7fa.",
        b"\x80\x02c__torch__\nA\n)\x81}b.", b"\x80\x02c__torch__\nA\n)\x81.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(NK\x00))NR.",
        b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
        b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7ftQ.",
    ],
)  # fmt: skip
def test_hostile_archives_are_refused(
    tmp_path: Path, root: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointFormatError, match=r"m\.pt"):
        read_state(archive(tmp_path / "m.pt", root, _0=bytes(16)))
    assert [p.name for p in tmp_path.iterdir()] == ["m.pt"]


# --- tensors that are not plain -----------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(3, device="meta"),
        lambda: torch.zeros(3).to_sparse(),
        lambda: torch.quantize_per_tensor(torch.zeros(3), 1.0, 0, torch.qint8),
        lambda: torch.zeros(3, dtype=torch.complex64).conj(),
        lambda: torch.zeros(3, dtype=torch.float8_e4m3fn),
        lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
        lambda: torch.zeros(0, 3),
    ],
    ids=["meta", "sparse", "quantized", "conj", "float8", "nested", "empty"],
)
def test_odd_tensors_are_refused(tmp_path: Path, make: Callable[[], torch.Tensor]) -> None:
    torch.save({"body.0.weight": make()}, tmp_path / "m.pth")
    with pytest.raises(CheckpointFormatError, match=r"m\.pth"):
        read_state(tmp_path / "m.pth")


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8, torch.uint16])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_of_integers_are_refused(tmp_path: Path, dtype: torch.dtype, suffix: str) -> None:
    state = CompactArchitecture(2, 0, 4).build().state_dict()
    state["body.0.weight"] = torch.zeros(4, 3, 3, 3, dtype=dtype)
    path = tmp_path / f"m.{suffix}"
    if suffix == "pth":
        torch.save(state, path)
    else:
        safetensors.torch.save_file(state, path)
    with pytest.raises(CheckpointFormatError, match=r"body\.0\.weight.*expected float"):
        load_model(path)


def safetensors_file(path: Path, header: object, data: bytes = b"") -> Path:
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@pytest.mark.parametrize("dtype", ["F4", "F8_E5M2", "F6_E3M2", "C64", "X", "I64"])
def test_dtypes_of_safetensors(tmp_path: Path, dtype: str) -> None:
    header = {"body.0.weight": {"dtype": dtype, "shape": [2, 8], "data_offsets": [0, 8]}}
    path = safetensors_file(tmp_path / "m.safetensors", header, bytes(8))
    with pytest.raises((CheckpointFormatError, UnknownArchitectureError)):
        load_model(path)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000, '{"architecture": ' + "[" * 100_000, "7", "[]", '{"a": ' + "9" * 5000 + "}",
        '{"architecture": 7}', '{"architecture": {"kind": ["rrdb"]}}',
        '{"architecture": {"kind": "rrdb", "features": 1099511627776}}',
        '{"architecture": {"kind": "rrdb", "blocks": 1000000000}}',
        '{"architecture": {"kind": "compact", "scale": Infinity}}',
        '{"architecture": {"kind": "compact", "scale": 1e999}}', '{"format": {}}', "\\ud800", "nul",
    ],
)  # fmt: skip
def test_descriptions_of_any_text(tmp_path: Path, text: str) -> None:
    state = CompactArchitecture(2, 0, 4).build().state_dict()
    safetensors.torch.save_file(state, tmp_path / "m.safetensors", metadata={"realesr": text})
    began = time.monotonic()
    with pytest.raises((CheckpointFormatError, UnknownArchitectureError)) as caught:
        load_model(tmp_path / "m.safetensors")
    assert time.monotonic() - began < 2
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 2000


def test_keys_that_are_no_names(tmp_path: Path) -> None:
    torch.save({10**4999: torch.zeros(1), (1, 2): 3}, tmp_path / "m.pth")
    with pytest.raises(CheckpointFormatError, match=r"m\.pth"):
        read_state(tmp_path / "m.pth")


def test_a_prefix_of_one_name_is_not_the_networks(tmp_path: Path) -> None:
    state = CompactArchitecture(2, 0, 4).build().state_dict()
    torch.save({**state, "module.version": torch.zeros(1)}, tmp_path / "m.pth")
    assert read_state(tmp_path / "m.pth")[0].keys() == {*state, "module.version"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_and_devices_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.pth")
    for path in (tmp_path / "m.pth", Path("/dev/zero")):
        with pytest.raises(CheckpointFormatError, match="regular file"):
            read_state(path)
    with pytest.raises(CheckpointFormatError):
        read_state(tmp_path / ("x" * 5000))


def test_a_long_name_in_an_archive_is_shortened(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
        archive.writestr("m/data.pkl", b"\x80\x02c" + b"x" * 5000 + b"\ny\n.")
        archive.writestr("m/constants.pkl", b"")
    with pytest.raises(CheckpointFormatError, match="refused") as caught:
        read_state(tmp_path / "m.pt")
    assert len(str(caught.value)) < 500
