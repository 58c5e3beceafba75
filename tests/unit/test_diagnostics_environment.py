"""What `realesr doctor` finds and shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from realesr_cli.cli.doctor import doctor_command, format_sections
from realesr_cli.diagnostics import environment
from realesr_cli.diagnostics.environment import CacheInfo, LibraryInfo, find_problems
from realesr_cli.diagnostics.graphics import GpuDiagnosis
from realesr_cli.engine import policy
from realesr_cli.engine.backends import BACKENDS, onednn
from realesr_cli.engine.race import Race, Rate
from realesr_cli.engine.trial import TrialFailure
from realesr_cli.errors import MissingDependencyError

NO_GPU = GpuDiagnosis(False, "no GPU found; the CPU is used")
CACHE = CacheInfo("folder", True, ("x4plus",), 5)


def _run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(doctor_command, arguments, standalone_mode=False)
    assert result.exception is None
    return result.return_value, result.output  # type: ignore[return-value]


def test_a_sound_installation_has_no_problems():
    assert find_problems(NO_GPU, (LibraryInfo("opencv-python", "", "5.0"),), CACHE) == ()


@pytest.mark.parametrize(
    ("cache", "offline", "word", "fix"),
    [
        (CacheInfo("folder", False, (), 0), False, "not writable", "REALESR_HOME"),
        (CacheInfo("folder", True, (), 0), True, "REALESR_OFFLINE", "models pull"),
    ],
)
def test_a_cache_that_is_of_no_use_is_a_problem(
    cache: CacheInfo, offline: bool, word: str, fix: str
):
    (found,) = find_problems(NO_GPU, (), cache, offline=offline)
    assert found.level == "problem"
    assert word in found.what
    assert fix in str(found.fix)


def test_a_library_that_does_not_load_names_the_system_package(monkeypatch: pytest.MonkeyPatch):
    broken = LibraryInfo("opencv-python", "16-bit", "5.0", "libGL.so.1: cannot open")
    monkeypatch.setattr(environment.platform, "system", lambda: "Linux")
    assert "libgl1" in str(find_problems(NO_GPU, (broken,), CACHE)[0].fix)
    monkeypatch.setattr(environment.platform, "system", lambda: "Windows")
    assert "pip install --force" in str(find_problems(NO_GPU, (broken,), CACHE)[0].fix)
    absent = LibraryInfo("opencv-python", "16-bit", None, "No module named cv2")
    assert find_problems(NO_GPU, (absent,), CACHE)[0].fix == "pip install opencv-python"


def test_two_builds_of_onnx_runtime_are_a_problem():
    builds = {"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.31.1"}
    (found,) = find_problems(NO_GPU, (), CACHE, onnx_builds=builds)
    assert found.level == "problem"
    assert "onnxruntime-gpu" in found.what
    assert "pip uninstall" in str(found.fix)
    assert not find_problems(NO_GPU, (), CACHE, onnx_builds={"onnxruntime": "1.31.1"})


def test_remembered_races_are_shown(monkeypatch: pytest.MonkeyPatch):
    own, rival = Rate("onednn", "bf16", 512, 1e6), Rate("openvino", "bf16", 192, 1.3e6)
    monkeypatch.setattr(environment, "remembered_races", lambda: [Race("Compact", own, rival)])
    lines = dict(format_sections(environment.examine()))["Measured backends"]
    assert "openvino (bf16) 1.30 times as fast as onednn" in lines[0]


def test_an_unused_gpu_is_a_note_with_its_fix():
    (found,) = find_problems(GpuDiagnosis(False, "built without CUDA", "pip install it"), (), CACHE)
    assert (found.level, found.what, found.fix) == ("note", "built without CUDA", "pip install it")


def test_the_choice_follows_the_machine_given():
    card = policy.GpuInfo("cuda:0", "A card", 8 << 30, 10 << 30, (8, 6))
    chosen = environment.choose_for(policy.MachineInfo(cores=3, gpus=(card,)), "x4plus").policy
    assert (chosen.device, chosen.precision) == ("cuda:0", "fp16")
    assert any("A card" in reason for reason in chosen.reasons)


def test_the_report_as_json_is_complete_and_plain():
    code, output = _run("--json")
    data = json.loads(output)
    assert code == 0
    assert data["versions"]["torch"]
    assert [c["model"] for c in data["auto"]] == list(environment.EXAMPLE_MODELS)
    assert data["gpu"]["why"]
    assert {"torch", "onednn"} <= {backend["name"] for backend in data["backends"]}
    assert data["cache"]["folder"]


def test_a_problem_changes_the_exit_code_and_is_shown(monkeypatch: pytest.MonkeyPatch):
    def broken(purpose: str) -> None:
        raise MissingDependencyError("libGL.so.1 is missing")

    monkeypatch.setattr(environment, "load_opencv", broken)
    code, output = _run()
    assert code == 1
    assert "problem: libGL.so.1 is missing" in output
    assert "CANNOT BE LOADED" in output


def test_proxies_are_named_without_their_secrets(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@proxy")
    _, output = _run()
    assert "HTTPS_PROXY=set" in output
    assert "secret" not in output


def test_offline_mode_is_shown(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("REALESR_OFFLINE", "1")
    lines = dict(format_sections(environment.examine()))["Models"]
    assert any("offline" in line for line in lines)


def test_models_at_hand_are_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("REALESR_HOME", str(tmp_path))
    before = environment.check_cache()
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "RealESRGAN_x2plus.pth").write_bytes(b"12345")
    after = environment.check_cache()
    assert set(after.models) - set(before.models) == {"RealESRGAN_x2plus"}
    assert after.bytes - before.bytes == 5
    assert after.writable


def test_a_cache_folder_below_a_file_cannot_be_written_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("REALESR_HOME", str(tmp_path / "file" / "home"))
    assert not environment.check_cache().writable


def test_a_package_that_is_not_installed_has_no_version():
    assert environment.find_version("no-such-distribution-anywhere") is None


def test_every_backend_is_listed_with_its_reason_and_fix(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(onednn, "can_fuse", lambda: False)
    lines = dict(format_sections(environment.examine()))["Backends"]
    assert len(lines) >= len(BACKENDS) + 1
    place = next(i for i, line in enumerate(lines) if line.startswith("onednn: not usable"))
    assert lines[place + 1].strip().startswith("pip install")
    assert any(line.startswith("torch: torch") for line in lines)


def test_bench_measures_what_is_available(monkeypatch: pytest.MonkeyPatch):
    from realesr_cli.cli.bench import bench_command
    from realesr_cli.diagnostics import rates as bench

    monkeypatch.setattr(bench.policy, "machine_info", lambda device: policy.MachineInfo())
    outputs = iter([(Rate("torch", "fp32", 160, 1e6), 1000.0), TrialFailure("SIGILL")])

    def run(backend: object, function: object, arguments: object) -> object:
        return next(outputs, TrialFailure("no more"))

    monkeypatch.setattr(bench.trial, "run_in_child", run)
    result = CliRunner().invoke(bench_command, ["--json"])
    rows = json.loads(result.output)
    assert {row["backend"] for row in rows} == {"torch"}
    flops = bench.count_flops_per_pixel(bench.FAMILIES["RRDBNet"])
    assert flops == 2 * 9 * (3 * 64 + 4 * 3 * 64 * 416 + 64 * 64 * 37 + 64 * 3 * 16)
    assert rows[0]["gflop_per_s"] == pytest.approx(flops / 1e3)
    assert rows[0]["share"] == pytest.approx(flops / 1e6)
    assert rows[1]["problem"] == "SIGILL"


def test_the_ceiling_is_measured(monkeypatch: pytest.MonkeyPatch):
    from realesr_cli.diagnostics import rates as bench

    monkeypatch.setattr(bench, "CEILING_RUNS", 1)
    assert bench.measure_ceiling(torch.device("cpu"), torch.float32) > 0
