"""Backends of other libraries are compared, raced and remembered; bad ones are not used."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from broken_backends import BrokenBackend

from realesr_cli.engine import backends, policy, race, trial
from realesr_cli.engine.policy import MachineInfo
from realesr_cli.engine.race import Rate
from realesr_cli.engine.settings import EngineSettings
from realesr_cli.engine.upscaler import Upscaler
from realesr_cli.errors import DeviceError, RealesrWarning
from realesr_cli.nets.compact import Compact, CompactArchitecture
from realesr_cli.weights.registry import home

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def net() -> Compact:
    torch.manual_seed(0)
    return CompactArchitecture(2, 1, 4).build().eval()


def install(monkeypatch: pytest.MonkeyPatch, name: str) -> tuple[BrokenBackend, MachineInfo]:
    """Add a backend; its trials can import this folder."""
    backend = BrokenBackend(name)
    monkeypatch.setattr(backends, "BACKENDS", (*backends.BACKENDS, backend))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return backend, MachineInfo(backends=frozenset({"torch", name}))


def fake_child(monkeypatch: pytest.MonkeyPatch, *outputs: Any) -> list[Any]:
    """Let other processes give these results, in turn; returns the tasks."""
    tasks: list[Any] = []

    def run(backend: Any, function: Any, arguments: Any) -> Any:
        tasks.append(function)
        return outputs[len(tasks) - 1]

    monkeypatch.setattr(trial, "run_in_child", run)
    return tasks


def select_policy(net: Compact, machine: MachineInfo, engine: EngineSettings) -> policy.Policy:
    own = policy.choose(machine, engine, net.architecture)
    if policy.concerns_libraries(machine, engine, own):
        return race.select_policy(net, machine, engine, own)
    return own


def good_tile(net: Compact) -> Any:
    return trial.compute_tile(net, policy.Policy("cpu", "fp32", "torch", 64, 0, 1, 1))


# --- is it right? -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "precision", "usable"),
    [(9e-5, "fp32", True), (1.1e-4, "fp32", False), (5e-3, "bf16", True), (6e-3, "fp16", False)],
)
def test_the_bounds_are_those_of_the_precision(error: float, precision: str, usable: bool) -> None:
    expected = torch.rand(1, 3, 8, 8)
    assert trial.compare_outputs(expected + error, expected, precision).usable is usable


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (torch.zeros(1, 3, 8, 7), "shape"),
        (torch.full((1, 3, 8, 8), float("nan")), "NaN"),
        (torch.full((1, 3, 8, 8), float("inf")), "NaN or Inf"),
        (torch.ones(1, 3, 8, 8), "1.0e+00"),
    ],
)
def test_what_is_no_result_is_refused(found: torch.Tensor, word: str) -> None:
    result = trial.compare_outputs(found, torch.zeros(1, 3, 8, 8), "fp32")
    assert not result.usable
    assert word in result.reason


def test_a_library_that_kills_its_process_is_an_error_that_is_remembered(
    monkeypatch: pytest.MonkeyPatch, net: Compact
) -> None:
    _, machine = install(monkeypatch, "dies")
    engine = EngineSettings("cpu", backend="dies")
    with pytest.warns(RealesrWarning, match="SIGILL"), pytest.raises(DeviceError, match="SIGILL"):
        select_policy(net, machine, engine)
    tasks = fake_child(monkeypatch)
    with pytest.raises(DeviceError, match="SIGILL"):
        select_policy(net, machine, engine)
    assert not tasks


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "word"),
    [("nan", "NaN"), ("shape", "shape"), ("raises", "no kernel"), ("wrong", "differs")],
)
def test_each_failure_is_found_in_the_other_process(
    monkeypatch: pytest.MonkeyPatch, net: Compact, name: str, word: str
) -> None:
    _, machine = install(monkeypatch, name)
    with pytest.warns(RealesrWarning, match=word), pytest.raises(DeviceError, match=word):
        select_policy(net, machine, EngineSettings("cpu", backend=name))


@pytest.mark.slow
def test_a_sound_backend_passes_in_the_other_process(
    monkeypatch: pytest.MonkeyPatch, net: Compact
) -> None:
    _, machine = install(monkeypatch, "sound")
    found = select_policy(net, machine, EngineSettings("cpu", backend="sound"))
    assert found.backend == "sound"


def test_another_model_version_or_precision_is_another_trial(
    monkeypatch: pytest.MonkeyPatch, net: Compact
) -> None:
    backend, _ = install(monkeypatch, "sound")
    chosen = policy.Policy("cpu", "fp32", "sound", 64, 0, 1, 1)
    tile = good_tile(net)
    tasks = fake_child(monkeypatch, *[tile] * 4)
    for _ in range(2):
        assert trial.check_backend(net, chosen, backend).usable
    assert len(tasks) == 1
    bf16 = policy.Policy("cpu", "bf16", "sound", 64, 0, 1, 1)
    assert trial.check_backend(net, bf16, backend).usable
    monkeypatch.setattr(BrokenBackend, "versions", lambda self: {"torch": "next"})
    assert trial.check_backend(net, chosen, backend).usable
    assert len(tasks) == 3
    with torch.no_grad():
        net.body[0].weight[0, 0, 0, 0] += 1
    with pytest.warns(RealesrWarning):
        assert not trial.check_backend(net, chosen, backend).usable


@pytest.mark.parametrize("text", ["", "{", "[]", '{"usable": true}'])
def test_a_damaged_record_is_another_trial(
    monkeypatch: pytest.MonkeyPatch, net: Compact, text: str
) -> None:
    backend, _ = install(monkeypatch, "sound")
    chosen = policy.Policy("cpu", "fp32", "sound", 64, 0, 1, 1)
    tasks = fake_child(monkeypatch, *[good_tile(net)] * 2)
    trial.check_backend(net, chosen, backend)
    (record,) = (home() / "backends").glob("trial-*.json")
    record.write_text(text)
    assert trial.check_backend(net, chosen, backend).usable
    assert len(tasks) == 2
    assert json.loads(record.read_text())["usable"] is True


# --- is it faster? ------------------------------------------------------------------------------


def rates(ratio: float) -> list[Rate]:
    return [Rate("torch", "fp32", 160, 1e6), Rate("sound", "fp32", 64, ratio * 1e6)]


@pytest.mark.filterwarnings("ignore:measuring")
@pytest.mark.parametrize(("ratio", "chosen"), [(1.2, "sound"), (1.05, "torch"), (0.5, "torch")])
def test_auto_uses_another_library_only_where_it_wins_clearly(
    monkeypatch: pytest.MonkeyPatch, net: Compact, ratio: float, chosen: str
) -> None:
    _, machine = install(monkeypatch, "sound")
    tasks = fake_child(monkeypatch, rates(ratio), good_tile(net))
    assert select_policy(net, machine, EngineSettings()).backend == "torch"
    assert not tasks  # REALESR_RACE=0
    monkeypatch.delenv("REALESR_RACE")
    for _ in range(2):
        found = select_policy(net, machine, EngineSettings())
        assert found.backend == chosen
        assert len(found.reasons) == 5
    assert tasks == [race.measure_family, trial.compute_tile][: 1 + (chosen == "sound")]
    assert [one.ratio for one in race.remembered_races()] == [pytest.approx(ratio)]
    assert select_policy(net, machine, EngineSettings(backend="torch")).backend == "torch"


@pytest.mark.filterwarnings("ignore:measuring")
def test_a_rival_that_fails_is_reported_once(monkeypatch: pytest.MonkeyPatch, net: Compact) -> None:
    _, machine = install(monkeypatch, "sound")
    monkeypatch.delenv("REALESR_RACE")
    tasks = fake_child(monkeypatch, trial.TrialFailure("its process died by SIGFPE"))
    with pytest.warns(RealesrWarning, match="SIGFPE"):
        assert select_policy(net, machine, EngineSettings()).backend == "torch"
    assert select_policy(net, machine, EngineSettings()).backend == "torch"
    assert len(tasks) == 1


def test_a_race_measures_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "PASS_SECONDS", 0)
    monkeypatch.setattr(race, "RACE_SECONDS", 0)
    entries = [EngineSettings("cpu", "fp32", backend=name) for name in ("torch", "onednn")]
    found = race.measure_family(CompactArchitecture(1, 1, 4), entries)
    assert [rate.backend for rate in found] == ["torch", "onednn"]
    assert all(rate.pixels > 0 for rate in found)


# --- OpenVINO -----------------------------------------------------------------------------------


def test_without_the_library_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, net: Compact
) -> None:
    real = backends.base.importlib.util.find_spec
    monkeypatch.setattr(
        backends.base.importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "openvino" else real(name, *rest),
    )
    machine = policy.machine_info()
    assert "openvino" not in machine.backends
    with pytest.raises(DeviceError, match=r"pip install 'realesr-cli\[openvino\]'") as caught:
        select_policy(net, machine, EngineSettings(backend="openvino"))
    assert caught.value.exit_code == 2


def test_openvino_refuses_what_it_cannot_compute(net: Compact) -> None:
    machine = MachineInfo(backends=frozenset({"torch", "openvino"}))
    with pytest.raises(DeviceError, match="openvino cannot run"):
        select_policy(net, machine, EngineSettings(precision="fp16", backend="openvino"))


@pytest.fixture
def openvino_is_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not importorskip: an import that is not ours reports telemetry.
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("the extra openvino is not installed")
    monkeypatch.setattr(trial, "_in_child", True)


def make_image(height: int, width: int) -> Any:
    from realesr_cli.image.types import Image

    return Image(np.random.default_rng(0).random((height, width, 3), np.float32))


@pytest.mark.usefixtures("openvino_is_sound")
def test_openvino_computes_what_torch_does_from_tiles_of_one_shape(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from realesr_cli.engine.backends import openvino
    from realesr_cli.nets.rrdbnet import RRDBArchitecture

    torch.manual_seed(0)
    network = RRDBArchitecture(2, 1, 8, 4, unshuffle=2).build().eval()
    image = make_image(131, 150)
    shapes: set[tuple[int, ...]] = set()
    real = openvino._Compiled._compile
    monkeypatch.setattr(
        openvino._Compiled,
        "_compile",
        lambda self, shape: shapes.add(shape) or real(self, shape),
    )
    tiled = EngineSettings("cpu", "fp32", 24, 38, backend="openvino")
    found = Upscaler(network, tiled)(image).pixels
    assert shapes == {(1, 3, 112, 112), (1, 3, 113, 112)}  # 131 is no multiple of 2
    whole = EngineSettings("cpu", "fp32", 0, backend="torch")
    np.testing.assert_allclose(found, Upscaler(network, whole)(image).pixels, atol=2e-6)
    assert sys.modules["openvino_telemetry"] is None


@pytest.mark.usefixtures("openvino_is_sound")
def test_openvino_takes_batches_and_threads_and_holds_few_shapes(net: Compact) -> None:
    from concurrent.futures import ThreadPoolExecutor

    backend = backends.find_backend("openvino")
    forward = backend.open(net, policy.Policy("cpu", "fp32", "openvino", 0, 0, 1, 2))
    images = [torch.rand(n, 3, 8 + 2 * n, 9) for n in (1, 2, 3, 1, 4, 5, 6, 1)]
    with torch.inference_mode():
        expected = [net(x) for x in images]
    with ThreadPoolExecutor(4) as pool:
        for y, z in zip(pool.map(forward, images), expected, strict=True):
            torch.testing.assert_close(y, z, atol=1e-5, rtol=0)
    assert len(forward._shapes) == 4


@pytest.mark.usefixtures("openvino_is_sound")
def test_a_damaged_compiled_model_is_compiled_again(net: Compact) -> None:
    from realesr_cli.engine.backends.openvino import cache_folder

    chosen = policy.Policy("cpu", "fp32", "openvino", 0, 0, 1, 1)
    x = torch.rand(1, 3, 10, 10)
    expected = backends.find_backend("openvino").open(net, chosen)(x)
    (blob,) = cache_folder().glob("*.blob")
    for data in (blob.read_bytes()[:-100], b"", b"another version"):
        blob.write_bytes(data)
        found = backends.find_backend("openvino").open(net, chosen)(x)
        torch.testing.assert_close(found, expected)


# --- ONNX Runtime -------------------------------------------------------------------------------


def test_onnxruntime_computes_what_torch_does(
    monkeypatch: pytest.MonkeyPatch, net: Compact
) -> None:
    if not importlib.util.find_spec("onnxruntime"):
        pytest.skip("the extra onnxruntime is not installed")
    monkeypatch.setattr(trial, "_in_child", True)
    image = make_image(50, 41)
    found, expected = (
        Upscaler(net, EngineSettings("cpu", "fp32", 16, backend=name))(image).pixels
        for name in ("onnxruntime", "torch")
    )
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_onnxruntime_is_raced_only_where_its_build_has_more_than_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = MachineInfo(backends=frozenset({"torch", "onnxruntime"}))
    monkeypatch.setattr(sys, "platform", "linux")
    backend = backends.find_backend("onnxruntime")
    for builds, names in (({"onnxruntime"}, []), ({"onnxruntime-directml"}, ["onnxruntime"])):
        versions = dict.fromkeys(builds, "1")
        monkeypatch.setattr(type(backend), "versions", lambda self, found=versions: found)
        assert [rival.name for rival in backends.find_rivals(machine, "cpu")] == names


# --- ncnn ---------------------------------------------------------------------------------------

needs_ncnn = pytest.mark.skipif(not importlib.util.find_spec("ncnn"), reason="ncnn is missing")


@needs_ncnn
@pytest.mark.parametrize(("precision", "atol"), [("fp32", 2e-6), ("bf16", 2e-2)])
def test_ncnn_computes_what_torch_does(
    monkeypatch: pytest.MonkeyPatch, precision: str, atol: float
) -> None:
    from realesr_cli.nets.rrdbnet import RRDBArchitecture

    monkeypatch.setattr(trial, "_in_child", True)
    torch.manual_seed(0)
    network = RRDBArchitecture(2, 1, 8, 4, unshuffle=2).build().eval()
    image = make_image(71, 90)
    found, expected = (
        Upscaler(network, EngineSettings("cpu", p, 32, 38, backend=name))(image).pixels
        for name, p in (("ncnn", precision), ("torch", "fp32"))
    )
    np.testing.assert_allclose(found, expected, atol=atol)


def test_ncnn_is_raced_where_the_processor_has_no_bf16() -> None:
    both = frozenset({"torch", "onednn", "ncnn", "openvino"})
    for flags, names in (
        ({"avx2"}, ["ncnn"]),
        ({"avx2", "avx512f"}, ["openvino", "ncnn"]),
        ({"avx2", "avx512f", "avx512_bf16"}, ["openvino"]),
        ({"bf16"}, []),
    ):
        machine = MachineInfo(cpu_flags=frozenset(flags), backends=both)
        assert [rival.name for rival in backends.find_rivals(machine, "cpu")] == names
        assert backends.find_rivals(machine, "cuda:0") == []


def test_a_vulkan_device_is_used_only_when_named() -> None:
    gpu = policy.GpuInfo("vulkan:0", "A card", 4 << 30, 4 << 30)
    machine = MachineInfo(backends=frozenset({"torch", "ncnn"}), gpus=(gpu,))
    found = policy.choose(machine, EngineSettings("vulkan"), CompactArchitecture())
    assert (found.device, found.backend, found.precision) == ("vulkan:0", "ncnn", "fp16")
    assert policy.concerns_libraries(machine, EngineSettings("vulkan"), found)
    with pytest.raises(DeviceError, match="torch"):
        policy.choose(machine, EngineSettings("vulkan", backend="torch"), CompactArchitecture())
    with pytest.raises(DeviceError, match="vulkan:1"):
        policy.choose(machine, EngineSettings("vulkan:1"), CompactArchitecture())


@pytest.mark.slow
@needs_ncnn
def test_vulkan_computes_what_torch_does(capfd: pytest.CaptureFixture[str]) -> None:
    """On Mesa's software driver where there is no GPU: apt-get install mesa-vulkan-drivers."""
    from realesr_cli.engine.backends.ncnn import find_vulkan_gpus

    if not find_vulkan_gpus():
        pytest.skip("no Vulkan device: apt-get install mesa-vulkan-drivers libvulkan1")
    torch.manual_seed(0)
    network = CompactArchitecture(4, 4, 16).build().eval()
    image = make_image(40, 30)
    expected = Upscaler(network, EngineSettings("cpu", "fp32", backend="torch"))(image).pixels
    for precision, bound in (("fp32", 1e-4), ("fp16", 5e-3)):
        upscaler = Upscaler(network, EngineSettings("vulkan", precision))  # its trial passes
        assert upscaler.policy.device == "vulkan:0"
        assert np.abs(upscaler(image).pixels - expected).max() < bound
