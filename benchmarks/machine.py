"""The machine that a benchmark runs on: processor, microarchitecture, allocator settings."""

from __future__ import annotations

import platform
from pathlib import Path

TUNED_MALLOC = {
    "GLIBC_TUNABLES": "glibc.malloc.mmap_max=0"
    ":glibc.malloc.trim_threshold=68719476736"
    ":glibc.malloc.top_pad=67108864"
}
"""Environment in which glibc keeps freed memory instead of returning it to the system.

By default every large tensor is mapped anew, and the system hands out its pages zeroed, one page
fault each. The plain PyTorch module spends up to half of its time there.
"""

# Ranges of models by (vendor, family), from the vendors' tables of CPUID signatures.
_MICROARCHITECTURES = {
    ("AuthenticAMD", 23): ((0x00, 0x2F, "Zen"), (0x30, 0xFF, "Zen 2")),
    ("AuthenticAMD", 25): (
        (0x00, 0x0F, "Zen 3"),
        (0x10, 0x1F, "Zen 4"),
        (0x20, 0x5F, "Zen 3"),
        (0x60, 0xFF, "Zen 4"),
    ),
    ("AuthenticAMD", 26): ((0x00, 0xFF, "Zen 5"),),
    ("GenuineIntel", 6): (
        (0x55, 0x55, "Skylake or Cascade Lake"),
        (0x6A, 0x6C, "Ice Lake"),
        (0x8F, 0x8F, "Sapphire Rapids"),
        (0xAD, 0xAE, "Granite Rapids"),
        (0xCF, 0xCF, "Emerald Rapids"),
    ),
}


def describe_processor(cpuinfo: str | None = None) -> str:
    """Return the processor's name with its CPUID family and model, as /proc/cpuinfo has them.

    A virtual machine may call the processor anything; family and model are the processor's own.
    """
    if cpuinfo is None:
        try:
            cpuinfo = Path("/proc/cpuinfo").read_text()
        except OSError:
            return platform.processor() or platform.machine()
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    name = fields.get("model name", platform.machine())
    family, model = fields.get("cpu family", ""), fields.get("model", "")
    if not (family.isdecimal() and model.isdecimal()):
        return name
    ranges = _MICROARCHITECTURES.get((fields.get("vendor_id", ""), int(family)), ())
    found = next((f"{what}, " for low, high, what in ranges if low <= int(model) <= high), "")
    return f"{name} ({found}family {family}, model {model})"
