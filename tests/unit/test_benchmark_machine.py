"""What benchmarks say of the processor they ran on."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def machine(root: Path) -> ModuleType:
    """benchmarks/machine.py, which is not part of the package."""
    spec = importlib.util.spec_from_file_location("machine", root / "benchmarks" / "machine.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def cpuinfo(vendor: str, family: int, model: int, name: str) -> str:
    return (
        f"processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\n"
        f"model\t\t: {model}\nmodel name\t: {name}\n\nprocessor\t: 1\nmodel name\t: other\n"
    )


@pytest.mark.parametrize(
    ("vendor", "family", "model", "expected"),
    [
        ("AuthenticAMD", 25, 17, "Zen 4"),
        ("AuthenticAMD", 25, 97, "Zen 4"),
        ("AuthenticAMD", 25, 1, "Zen 3"),
        ("AuthenticAMD", 26, 2, "Zen 5"),
        ("GenuineIntel", 6, 143, "Sapphire Rapids"),
    ],
)
def test_the_microarchitecture_is_that_of_cpuid(machine, vendor, family, model, expected) -> None:
    """A virtual machine may call the processor anything."""
    label = machine.describe_processor(cpuinfo(vendor, family, model, "AMD EPYC"))
    assert label == f"AMD EPYC ({expected}, family {family}, model {model})"


def test_processors_that_are_not_in_the_table_keep_their_numbers(machine) -> None:
    label = machine.describe_processor(cpuinfo("GenuineIntel", 6, 9999, "A CPU"))
    assert label == "A CPU (family 6, model 9999)"
    assert machine.describe_processor("Hardware: a board\n")


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_the_tuned_allocator_is_one_that_glibc_knows(machine) -> None:
    """An unknown tunable would be ignored without a word."""
    import subprocess

    listed = subprocess.run(["/lib64/ld-linux-x86-64.so.2", "--list-tunables"], text=True,
                            capture_output=True)  # fmt: skip
    if listed.returncode:
        pytest.skip("this loader lists no tunables")
    for setting in machine.TUNED_MALLOC["GLIBC_TUNABLES"].split(":"):
        assert setting.split("=")[0] in listed.stdout
