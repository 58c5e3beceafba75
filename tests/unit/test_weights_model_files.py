"""Checkpoints of every trainer give one network, hostile ones run nothing, files round-trip."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from realesr_cli.errors import (
    CheckpointFormatError,
    ConfigError,
    UnknownArchitectureError,
    UnknownModelError,
    WeightsWriteError,
)
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.nets.discriminators import UNetDiscriminator
from realesr_cli.nets.rrdbnet import RRDBArchitecture
from realesr_cli.nets.srresnet import SRResNetArchitecture
from realesr_cli.weights import model_files
from realesr_cli.weights.checkpoints import read_state
from realesr_cli.weights.load import interpolate, load_model

SMALL = RRDBArchitecture(scale=4, blocks=1, features=8, growth=4)
COMPACT = CompactArchitecture(scale=2, convs=1, features=4)


def make_state(architecture: Any = SMALL, seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    state = architecture.build().state_dict()
    return {name: torch.randn_like(tensor) for name, tensor in state.items()}


STATE = make_state()
OTHER = make_state(seed=1)


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


CONTAINERS: dict[str, Any] = {
    "flat": STATE,
    "params": {"params": STATE},
    "ema preferred": {"params": OTHER, "params_ema": STATE},
    "params-ema": {"params-ema": STATE, "params": OTHER},
    "state_dict": {"meta": {"epoch": 3}, "state_dict": STATE, "optimizer": {"state": {}}},
    "model_state_dict": {"model_state_dict": STATE, "epoch": 5},
    "model": {"model": STATE, "iter": 7},
    "net": {"net": STATE},
    "single unknown key": {"gen_weights": STATE},
    "module": prefixed("module.", STATE),
    "averaged": {**prefixed("module.", STATE), "n_averaged": torch.tensor(3)},
    "compiled": prefixed("_orig_mod.", STATE),
    "netG": {**prefixed("netG.", STATE), "netD.conv0.weight": torch.zeros(1)},
    "mmagic": {
        "state_dict": {
            **prefixed("generator.", OTHER),
            **prefixed("generator_ema.module.", STATE),
            "generator_ema.steps": torch.tensor(1),
            **prefixed("discriminator.", OTHER),
        }
    },
    "mmagic without EMA": {
        "state_dict": {**prefixed("generator.", STATE), "step_counter": torch.tensor(1)}
    },
    "nested": {"state_dict": {"params": prefixed("module.", STATE)}},
}


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("what", CONTAINERS)
def test_containers_and_prefixes(tmp_path: Path, what: str) -> None:
    torch.save(CONTAINERS[what], tmp_path / "m.pth")
    state, metadata = read_state(tmp_path / "m.pth")
    assert_same(state, STATE)
    assert metadata == {}


def test_old_torch_files_are_read(tmp_path: Path) -> None:
    torch.save({"params": STATE}, tmp_path / "m.pth", _use_new_zipfile_serialization=False)
    assert_same(read_state(tmp_path / "m.pth")[0], STATE)


def test_prefixes_come_off_safetensors_too(tmp_path: Path) -> None:
    safetensors.torch.save_file(prefixed("module.", STATE), tmp_path / "m.safetensors")
    state, metadata = read_state(tmp_path / "m.safetensors")
    assert_same(state, STATE)
    assert metadata == {}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_come_as_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    cast = {name: tensor.to(dtype) for name, tensor in STATE.items()}
    torch.save({"params": cast, "step": 3}, tmp_path / "m.pth")
    state, _ = read_state(tmp_path / "m.pth")
    assert_same(state, {name: tensor.float() for name, tensor in cast.items()})


def test_parameters_come_as_plain_contiguous_tensors(tmp_path: Path) -> None:
    net = COMPACT.build()
    torch.save(dict(net.named_parameters()), tmp_path / "m.pth")
    for tensor in read_state(tmp_path / "m.pth")[0].values():
        assert type(tensor) is Tensor
        assert not tensor.requires_grad
        assert tensor.is_contiguous()


class Bomb:
    """Pickles to a call that makes a file when it is loaded without care."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_code_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    target = tmp_path / "executed"
    path = tmp_path / "m.pth"
    data = {"params": STATE, "extra": Bomb(target)}
    torch.save(data, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointFormatError, match=r"pickled Python code.*mkdir.*nothing was run"):
        load_model(path)
    assert not target.exists()
    # The same file does run its code where nobody takes care: the bomb is real.
    torch.load(path, weights_only=False)
    assert target.exists()


def test_a_whole_pickled_network_is_refused(tmp_path: Path) -> None:
    torch.save(COMPACT.build(), tmp_path / "m.pth")
    with pytest.raises(CheckpointFormatError, match=r"pickled Python code.*Compact"):
        read_state(tmp_path / "m.pth")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([1, 2, 3], "got a list"),
        ({"epoch": 3, "loss": 0.5}, "'epoch', 'loss'"),
        ({}, "it holds nothing"),
        ({"a": {"b": {"c": {"d": {"e": {"f": {}}}}}}}, "got a dict"),
        (torch.zeros(3), "got a Tensor"),
    ],
)
def test_checkpoint_without_tensors(tmp_path: Path, data: object, said: str) -> None:
    torch.save(data, tmp_path / "m.pth")
    with pytest.raises(CheckpointFormatError, match=said):
        read_state(tmp_path / "m.pth")


def test_tensors_that_are_no_plain_numbers(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(3, dtype=torch.complex64)}, tmp_path / "m.pth")
    with pytest.raises(CheckpointFormatError, match="complex"):
        read_state(tmp_path / "m.pth")


def test_tensor_that_claims_more_than_the_file_holds(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(1 << 40)}, tmp_path / "m.pth")
    with pytest.raises(CheckpointFormatError, match="claims more numbers"):
        read_state(tmp_path / "m.pth")


@pytest.fixture(scope="module")
def whole_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "m.pth"
    torch.save({"params": STATE}, path)
    return path


@given(end=st.floats(0, 0.999), suffix=st.sampled_from(["pth", "safetensors"]))
@settings(max_examples=30)
def test_truncated_checkpoint_is_an_error_of_ours(
    whole_checkpoint: Path, end: float, suffix: str
) -> None:
    data = whole_checkpoint.read_bytes()
    if suffix == "safetensors":
        data = safetensors.torch.save(STATE)
    path = whole_checkpoint.with_name(f"cut.{suffix}")
    path.write_bytes(data[: int(end * len(data))])
    with pytest.raises(CheckpointFormatError):
        read_state(path)


@example(at=1569, value=0)
@given(at=st.integers(0, 1 << 30), value=st.integers(0, 255))
@settings(max_examples=60)
def test_flipped_byte_never_crashes(whole_checkpoint: Path, at: int, value: int) -> None:
    data = bytearray(whole_checkpoint.read_bytes())
    data[at % len(data)] = value
    path = whole_checkpoint.with_name("flipped.pth")
    path.write_bytes(bytes(data))
    with contextlib.suppress(CheckpointFormatError, UnknownArchitectureError):
        load_model(path)


def test_load_model_gives_a_network_for_inference(tmp_path: Path) -> None:
    net = SMALL.build()
    torch.save({"params": net.state_dict()}, tmp_path / "m.pth")
    loaded = load_model(tmp_path / "m.pth")
    assert loaded.architecture == SMALL
    assert loaded.scale == 4
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    x = torch.rand(1, 3, 5, 6)
    assert torch.equal(loaded(x), net.eval()(x))


def test_discriminator_is_no_generator(tmp_path: Path) -> None:
    torch.save(UNetDiscriminator().state_dict(), tmp_path / "m.pth")
    with pytest.raises(UnknownArchitectureError, match="discriminator") as caught:
        load_model(tmp_path / "m.pth")
    assert str(tmp_path / "m.pth") in str(caught.value)


def test_foreign_network_says_what_was_found(tmp_path: Path) -> None:
    torch.save({"layers.0.attn.qkv.weight": torch.zeros(3, 3)}, tmp_path / "m.pth")
    with pytest.raises(UnknownArchitectureError, match=r"layers.0.attn.qkv.weight'? 3x3"):
        load_model(tmp_path / "m.pth")


@pytest.mark.parametrize("name", ["body.x.weight", "body.99999999.rdb1.conv1.weight", "body."])
@pytest.mark.parametrize("state", [STATE, make_state(COMPACT)])
def test_names_that_no_network_has(tmp_path: Path, state: dict[str, Tensor], name: str) -> None:
    torch.save({**state, name: torch.zeros(1)}, tmp_path / "m.pth")
    with pytest.raises(UnknownArchitectureError, match="body"):
        load_model(tmp_path / "m.pth")


def test_tensor_without_numbers(tmp_path: Path) -> None:
    torch.save({"conv_first.weight": torch.zeros(1 << 40, 3, 0, 3)}, tmp_path / "m.pth")
    with pytest.raises(CheckpointFormatError, match="is empty"):
        load_model(tmp_path / "m.pth")


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    broken = {**STATE, "conv_last.bias": torch.tensor([0, float("nan"), 0])}
    torch.save(broken, tmp_path / "m.pth")
    with pytest.raises(CheckpointFormatError, match=r"'conv_last.bias' holds NaN"):
        load_model(tmp_path / "m.pth")


def test_safetensors_round_trip_with_description(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    model_files.save_safetensors(path, STATE, model_files.model_metadata(SMALL, {"step": 5}))
    state, metadata = read_state(path)
    assert_same(state, STATE)
    assert metadata["step"] == 5
    assert metadata["scale"] == 4
    assert load_model(path).architecture == SMALL
    with safetensors.safe_open(path, framework="pt") as file:
        described = json.loads(file.metadata()["realesr"])
    assert described["format"] == 1
    assert described["architecture"]["kind"] == "rrdb"
    assert os.listdir(tmp_path) == ["m.safetensors"]


def test_description_settles_what_tensors_cannot_tell(tmp_path: Path) -> None:
    leaky = CompactArchitecture(scale=2, convs=1, features=4, activation="leakyrelu")
    state = make_state(leaky)
    model_files.save_safetensors(
        tmp_path / "m.safetensors", state, model_files.model_metadata(leaky)
    )
    assert load_model(tmp_path / "m.safetensors").architecture == leaky


def test_description_that_does_not_fit_the_tensors(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    model_files.save_safetensors(path, STATE, model_files.model_metadata(COMPACT))
    with pytest.raises(UnknownArchitectureError, match="described as Compact"):
        load_model(path)
    model_files.save_safetensors(path, STATE, {"architecture": {"kind": "rdb"}})
    with pytest.raises(UnknownArchitectureError, match="unknown architecture 'rdb'"):
        load_model(path)


@pytest.mark.parametrize(
    ("text", "said"), [("{", "damaged description"), ('{"format": 9}', "newer realesr-cli")]
)
def test_description_that_cannot_be_read(tmp_path: Path, text: str, said: str) -> None:
    safetensors.torch.save_file(STATE, tmp_path / "m.safetensors", metadata={"realesr": text})
    with pytest.raises(CheckpointFormatError, match=said):
        read_state(tmp_path / "m.safetensors")


def test_pth_round_trip_as_other_tools_read_it(tmp_path: Path) -> None:
    model_files.save_pth(tmp_path / "m.pth", {"params": OTHER, "params_ema": STATE})
    raw = torch.load(tmp_path / "m.pth", weights_only=True)
    assert_same(raw["params"], OTHER)
    assert_same(raw["params_ema"], STATE)
    assert_same(read_state(tmp_path / "m.pth")[0], STATE)
    assert os.listdir(tmp_path) == ["m.pth"]


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(WeightsWriteError, match="cannot be written"):
        model_files.save_safetensors(tmp_path / "none" / "m.safetensors", STATE, {})
    with pytest.raises(WeightsWriteError, match="cannot be written"):
        model_files.save_pth(tmp_path / "none" / "m.pth", {"params": STATE})


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match="no such file"):
        load_model(tmp_path / "m.pth")


def test_interpolation_is_exact_at_the_ends_and_linear_between() -> None:
    for alpha, end in ((0, STATE), (1, OTHER)):
        assert_same(interpolate(STATE, OTHER, alpha), end)
    half = interpolate(STATE, OTHER, 0.25)
    for name, tensor in half.items():
        torch.testing.assert_close(tensor, 0.75 * STATE[name] + 0.25 * OTHER[name])
    ends = interpolate(STATE, OTHER, 0)
    ends["conv_last.bias"].zero_()
    assert STATE["conv_last.bias"].any(), "the result shares memory with its source"


def test_interpolation_refuses_what_does_not_fit() -> None:
    wider = make_state(RRDBArchitecture(scale=4, blocks=1, features=16, growth=4))
    with pytest.raises(ConfigError, match=r"'conv_first.weight' is 16x3x3x3, expected 8x3x3x3"):
        interpolate(STATE, wider, 0.5)
    deeper = make_state(RRDBArchitecture(scale=4, blocks=2, features=8, growth=4))
    with pytest.raises(ConfigError, match=r"'body\.1.+ does not belong"):
        interpolate(STATE, deeper, 0.5)
    for alpha in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="share from 0"):
            interpolate(STATE, OTHER, alpha)


def test_loading_does_not_initialize_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On networks without memory torch would load its compiler for that, which takes a second."""
    for number, architecture in enumerate((SMALL, SRResNetArchitecture(blocks=1, features=4))):
        model_files.save_pth(
            tmp_path / f"{number}.pth", {"params": architecture.build().state_dict()}
        )
    monkeypatch.delattr(torch.nn.init, "kaiming_normal_")
    monkeypatch.delattr(torch.nn.init, "zeros_")
    for path in sorted(tmp_path.iterdir()):
        load_model(path)


# --- what is written ----------------------------------------------------------------------------


def test_the_same_tensors_give_the_same_bytes(tmp_path: Path) -> None:
    """The library writes the keys of its header in an order that changes with every call."""
    state = {f"body.{i}.weight": torch.full((i + 1, 2), float(i)) for i in range(40)}
    facts = {key: {"b": 1, "a": [2]} for key in "zyxabc"}
    found = set()
    for _ in range(20):
        model_files.save_safetensors(tmp_path / "m.safetensors", state, facts)
        model_files.save_pth(tmp_path / "m.pth", {"params": state}, facts)
        found.add(tuple((tmp_path / f"m{s}").read_bytes() for s in (".safetensors", ".pth")))
    assert len(found) == 1
    data = found.pop()[0]
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert list(header) == sorted(header)
    assert list(header["__metadata__"]) == ["format", "realesr"]


def test_tensors_keep_their_alignment_and_order(tmp_path: Path) -> None:
    """The header must end at a multiple of 8, whatever the length of the description."""
    for length in range(9):
        path = tmp_path / "m.safetensors"
        state = {"b": torch.arange(3.0), "a": torch.arange(5, dtype=torch.float16)}
        model_files.save_safetensors(path, state, {"x": "y" * length})
        assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0
        with safetensors.safe_open(path, framework="pt") as file:
            assert all(torch.equal(file.get_tensor(name), state[name]) for name in state)


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_files_have_the_permissions_of_others(tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"m{suffix}"

    def save() -> int:
        if suffix == ".pth":
            model_files.save_pth(target, {"params": STATE})
        else:
            model_files.save_safetensors(target, STATE, {})
        return target.stat().st_mode & 0o777

    before = os.umask(0o027)
    try:
        assert save() == 0o640
        target.chmod(0o600)
        assert save() == 0o600
    finally:
        os.umask(before)


def test_stale_temporary_files_are_removed(tmp_path: Path) -> None:
    stale = tmp_path / ".realesr-0123456789abcdef.part"
    stale.write_bytes(b"x")
    model_files.save_safetensors(tmp_path / "m.safetensors", STATE, {})
    assert os.listdir(tmp_path) == ["m.safetensors"]
