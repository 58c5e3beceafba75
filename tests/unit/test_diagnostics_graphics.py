"""Why a GPU is not used: every situation users report, from made-up machines."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from realesr_cli.diagnostics import graphics
from realesr_cli.diagnostics.graphics import CUDA_RELEASES, GraphicsInfo, diagnose

CUDA = GraphicsInfo(torch="2.13.0", cuda="12.6", cards=("nvidia",), driver="560.35.03")
ROCM = GraphicsInfo(torch="2.13.0", hip="6.4", cards=("amd",), kfd="open")
MAC = GraphicsInfo(system="Darwin", machine="arm64", apple_silicon=True, mps_built=True)


def test_a_working_gpu_is_named_with_its_build():
    found = diagnose(dataclasses.replace(CUDA, cuda_available=True))
    assert found.usable
    assert "CUDA 12.6" in found.why
    assert found.fix is None
    assert "ROCm 6.4" in diagnose(dataclasses.replace(ROCM, cuda_available=True)).why
    assert "MPS" in diagnose(dataclasses.replace(MAC, mps_available=True)).why
    assert diagnose(GraphicsInfo(cards=("intel",), xpu_available=True)).usable


@pytest.mark.parametrize(
    ("info", "why", "fix"),
    [
        (GraphicsInfo(cards=("nvidia",), driver="560.1"), "without CUDA", "/whl/cu126"),
        (GraphicsInfo(cards=("nvidia",), driver="580.65"), "without CUDA", "/whl/cu130"),
        (GraphicsInfo(cards=("nvidia",), driver="470.1"), "without CUDA", "ubuntu-drivers"),
        (GraphicsInfo(cards=("nvidia",), driver="560.1", hip="6.4"), "ROCm 6.4", "/whl/cu126"),
        (GraphicsInfo(cards=("nvidia",), cuda="12.6"), "not loaded", "ubuntu-drivers"),
        (
            GraphicsInfo(system="Windows", cards=("nvidia",), cuda="12.6"),
            "not loaded",
            "nvidia.com",
        ),
        (dataclasses.replace(CUDA, cuda="13.0"), "too old", "/whl/cu126"),
        (dataclasses.replace(CUDA, cuda_error="error 803"), "error 803", "nvidia-smi"),
        (CUDA, "no device answers", "nvidia-smi"),
        (dataclasses.replace(CUDA, visible=""), "hides every GPU", "unset CUDA_VISIBLE_DEVICES"),
        (dataclasses.replace(ROCM, visible="-1"), "hides", "unset HIP_VISIBLE_DEVICES"),
        (GraphicsInfo(cards=("amd",), cuda="12.6"), "without ROCm", "/whl/rocm"),
        (dataclasses.replace(ROCM, kfd="closed"), "/dev/kfd", "usermod"),
        (dataclasses.replace(ROCM, kfd=None), "/dev/kfd", "amdgpu-install"),
        (ROCM, "cannot start", "rocminfo"),
        (dataclasses.replace(MAC, mps_built=False), "without MPS", "pip install"),
        (dataclasses.replace(MAC, machine="x86_64"), "translated", "arch -arm64"),
        (MAC, "macOS 12.3", "softwareupdate"),
        (GraphicsInfo(cards=("intel",)), "without XPU", "/whl/xpu"),
    ],
)
def test_each_reason_comes_with_the_command_that_helps(info: GraphicsInfo, why: str, fix: str):
    found = diagnose(info)
    assert not found.usable
    assert why in found.why
    assert found.fix is not None
    assert fix in found.fix


@pytest.mark.parametrize(
    ("info", "why"),
    [
        (GraphicsInfo(), "no GPU found"),
        (GraphicsInfo(system="Darwin", machine="x86_64"), "no Apple silicon"),
        (GraphicsInfo(system="Windows", cards=("amd",)), "needs Linux"),
    ],
)
def test_where_nothing_helps_no_command_is_given(info: GraphicsInfo, why: str):
    found = diagnose(info)
    assert why in found.why
    assert not found.usable
    assert found.fix is None


def test_cards_and_driver_are_read_from_the_system_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name, kind, vendor in (("a", "0x030000", "0x10de"), ("b", "0x020000", "0x8086")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "class").write_text(kind + "\n")
        (tmp_path / name / "vendor").write_text(vendor + "\n")
    version = tmp_path / "version"
    version.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  560.35.03  Fri Aug 16\n")
    monkeypatch.setattr(graphics, "_PCI", tmp_path)
    monkeypatch.setattr(graphics, "_NVIDIA_VERSION", version)
    monkeypatch.setattr(graphics.shutil, "which", lambda _: None)
    info = graphics.graphics_info()
    assert info.cards == ("nvidia",)
    assert info.driver == "560.35.03"


def test_a_helper_program_that_fails_reports_nothing():
    assert graphics._run("false") == ""
    assert graphics._run("no-such-program-anywhere") == ""


def test_the_table_of_cuda_releases_is_in_order_and_dated():
    assert [r.cuda for r in CUDA_RELEASES] == sorted((r.cuda for r in CUDA_RELEASES), reverse=True)
    drivers = [r.oldest_driver for r in CUDA_RELEASES]
    assert drivers == sorted(drivers, reverse=True)
    found = diagnose(GraphicsInfo(cards=("nvidia",), driver="580.65"))
    assert graphics.TABLE_DATE in str(found.fix)


def test_the_driver_is_read_from_nvidia_smi_where_the_kernel_does_not_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As on Windows and in WSL."""
    text = "| NVIDIA-SMI 580.65.06    Driver Version: 580.65.06    CUDA Version: 13.0 |"
    monkeypatch.setattr(graphics, "_NVIDIA_VERSION", tmp_path / "none")
    monkeypatch.setattr(graphics.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(graphics, "_run", lambda *_: text)
    assert graphics.graphics_info().driver == "580.65.06"
