"""Decisions from facts: what each machine gets, and why, without having the machine."""

from __future__ import annotations

import pytest
import torch

from realesr_cli.engine.backends import BACKENDS, find_backend, onednn
from realesr_cli.engine.policy import (
    GIB,
    GpuInfo,
    MachineInfo,
    choose,
    machine_info,
)
from realesr_cli.engine.settings import EngineSettings, UpscaleSettings, output_size
from realesr_cli.errors import ConfigError, DeviceError
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.nets.rrdbnet import RRDBArchitecture, standard_architecture
from realesr_cli.settings import walk

RRDB = standard_architecture(4)
COMPACT = CompactArchitecture(4, 32)


def cuda(free_gib: float, capability=(8, 6), index=0) -> GpuInfo:
    return GpuInfo(
        f"cuda:{index}", "Test GPU", int(free_gib * GIB), int(free_gib * GIB), capability
    )


BOTH = frozenset({"onednn", "torch"})
AMX = MachineInfo(2, 2, 8 * GIB, frozenset({"avx512f", "avx512_bf16", "amx_bf16"}), BOTH)
ZEN = MachineInfo(8, 8, 16 * GIB, frozenset({"avx512f", "avx512_bf16"}), BOTH)
LAPTOP = MachineInfo(4, 4, 8 * GIB, frozenset({"avx2"}), BOTH)
ARM = MachineInfo(8, 8, 16 * GIB, frozenset({"bf16"}))
SMALL_GPU = MachineInfo(4, 4, 8 * GIB, frozenset({"avx2"}), BOTH, (cuda(1.5),))
BIG_GPU = MachineInfo(
    16, 16, 64 * GIB, frozenset({"avx512_bf16"}), BOTH, (cuda(140, (9, 0)), cuda(9, index=1))
)
OLD_GPU = MachineInfo(4, 4, 8 * GIB, frozenset({"avx2"}), BOTH, (cuda(6, (5, 2)),))
APPLE = MachineInfo(8, 8, 16 * GIB, gpus=(GpuInfo("mps", "Apple GPU", 10 * GIB, 10 * GIB),))

TABLE = [
    (AMX, "cpu", "bf16", "onednn"),
    (ZEN, "cpu", "bf16", "onednn"),
    (LAPTOP, "cpu", "fp32", "onednn"),
    (ARM, "cpu", "fp32", "torch"),
    (SMALL_GPU, "cuda:0", "fp16", "torch"),
    (BIG_GPU, "cuda:0", "fp16", "torch"),
    (OLD_GPU, "cuda:0", "fp32", "torch"),
    (APPLE, "mps", "fp32", "torch"),
]


@pytest.mark.parametrize(("found", "device", "precision", "backend"), TABLE)
@pytest.mark.parametrize("architecture", [RRDB, COMPACT])
def test_auto(found, device, precision, backend, architecture):
    policy = choose(found, EngineSettings(), architecture)
    assert (policy.device, policy.precision, policy.backend) == (device, precision, backend)
    assert policy.threads == found.threads
    assert len(policy.reasons) == 5
    assert policy.dtype in (torch.float32, torch.float16, torch.bfloat16)


@pytest.mark.parametrize("free", [1, 2, 4, 8, 24, 140])
def test_a_tile_fits_in_the_free_memory(free):
    found = MachineInfo(4, 4, 8 * GIB, gpus=(cuda(free),))
    for architecture in (RRDB, COMPACT, standard_architecture(2)):
        policy = choose(found, EngineSettings(), architecture)
        side = policy.tile + 2 * min(48, architecture.receptive_radius)
        need = side**2 * find_backend("torch").memory_per_pixel(architecture, "fp16") * policy.batch
        assert need <= free * GIB or policy.tile == 64


def test_more_memory_never_means_smaller_tiles():
    tiles = [
        choose(MachineInfo(gpus=(cuda(free),)), EngineSettings(), RRDB).tile
        for free in (1, 2, 4, 8, 80)
    ]
    assert tiles == sorted(tiles)
    assert tiles[0] < tiles[-1]


def test_what_is_asked_for_is_what_is_taken():
    engine = EngineSettings("cuda:1", "bf16", 300, 17, 5, 3)
    policy = choose(BIG_GPU, engine, RRDB)
    assert (policy.device, policy.precision, policy.tile) == ("cuda:1", "bf16", 300)
    assert (policy.overlap, policy.batch, policy.threads) == (17, 5, 3)
    assert choose(BIG_GPU, EngineSettings("cpu"), RRDB).device == "cpu"
    assert choose(BIG_GPU, EngineSettings("cuda"), RRDB).device == "cuda:0"
    assert choose(BIG_GPU, EngineSettings(tile=0), RRDB).tile == 0


def test_overlap_is_exact_for_small_networks_and_measured_for_large():
    assert choose(LAPTOP, EngineSettings(), COMPACT).overlap == 34
    assert choose(LAPTOP, EngineSettings(), RRDB).overlap is None
    assert choose(LAPTOP, EngineSettings(overlap=0), RRDB).overlap == 0


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        (EngineSettings("cuda"), "available: cpu"),
        (EngineSettings("cuda:7"), "cuda:7"),
        (EngineSettings("tpu"), "tpu"),
        (EngineSettings(precision="fp16"), "fp16"),
    ],
)
def test_what_cannot_be_had_is_an_error(engine, words):
    with pytest.raises(DeviceError, match=words):
        choose(LAPTOP, engine, RRDB)


def test_more_threads_than_any_machine_needs_are_refused():
    for cores, threads in ((2, 100000), (2, 17), (8, 33)):
        with pytest.raises(ConfigError, match=f"threads = {threads}"):
            choose(MachineInfo(cores), EngineSettings(threads=threads), COMPACT)
    assert choose(MachineInfo(8), EngineSettings(threads=32), COMPACT).threads == 32
    # What torch uses anyway, by OMP_NUM_THREADS or the host's choice, is no reason to stop.
    assert choose(MachineInfo(2, 64), EngineSettings(threads=64), COMPACT).threads == 64


def test_a_backend_is_chosen_by_name():
    for name in ("torch", "onednn"):
        assert choose(ZEN, EngineSettings(backend=name), COMPACT).backend == name
    # A backend that only knows the CPU decides the device too.
    policy = choose(BIG_GPU, EngineSettings(backend="onednn"), COMPACT)
    assert (policy.device, policy.precision) == ("cpu", "bf16")


@pytest.mark.parametrize(
    ("machine", "engine", "error", "words"),
    [
        (ZEN, EngineSettings(backend="onedn"), ConfigError, "did you mean 'onednn'"),
        (ARM, EngineSettings(backend="onednn"), DeviceError, "onednn"),
        (ZEN, EngineSettings(backend="onednn", precision="fp16"), DeviceError, "fp16"),
        (BIG_GPU, EngineSettings("cuda", backend="onednn"), DeviceError, "cuda:0"),
    ],
)
def test_a_backend_that_cannot_be_used_is_an_error(machine, engine, error, words):
    with pytest.raises(error, match=words) as caught:
        choose(machine, engine, COMPACT)
    assert caught.value.exit_code == 2


def test_networks_that_one_backend_lacks_go_to_the_next():
    plus = RRDBArchitecture(4, 2, plus=True)
    policy = choose(ZEN, EngineSettings(), plus)
    assert (policy.backend, policy.precision, policy.tile) == ("torch", "fp32", 160)
    with pytest.raises(DeviceError, match="onednn cannot run RRDBNet"):
        choose(ZEN, EngineSettings(backend="onednn"), plus)


@pytest.mark.parametrize(
    ("sizes", "free", "tile"),
    [((768, 512, 64), 16, 768), ((768, 512, 64), 0.5, 64), ((448,), 16, 448)],
)
def test_tile_sizes_are_those_of_the_list(monkeypatch, sizes, free, tile):
    monkeypatch.setattr(onednn, "CPU_TILES", sizes)
    machine = MachineInfo(memory_available=int(free * GIB), backends=BOTH)
    assert choose(machine, EngineSettings(), COMPACT).tile == tile


def test_the_help_names_every_backend():
    (setting,) = (s for s in walk(EngineSettings) if s.key == "backend")
    assert all(backend.name in setting.limits.help for backend in BACKENDS)


def test_this_machine_has_facts():
    found = machine_info()
    assert found.cores >= 1
    assert found.memory_available > GIB // 4
    assert choose(found, EngineSettings("cpu"), COMPACT).device == "cpu"


def test_a_card_that_gives_no_context_is_left_out(monkeypatch):
    def memory(index):
        if index == 0:
            raise RuntimeError("CUDA error: out of memory")
        return 5 * GIB, 8 * GIB

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", memory)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"card {index}")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (8, 6))
    found = [gpu for gpu in machine_info().gpus if gpu.device.startswith("cuda")]
    assert [(gpu.device, gpu.free) for gpu in found] == [("cuda:1", 5 * GIB)]


SIZES = [
    (UpscaleSettings(), (10, 20), (40, 80)),
    (UpscaleSettings(scale=2.5), (11, 20), (28, 50)),
    (UpscaleSettings(scale=1.1), (30, 10), (33, 11)),
    (UpscaleSettings(scale=0.5), (11, 20), (6, 10)),
    (UpscaleSettings(scale=0.01), (11, 20), (1, 1)),
    (UpscaleSettings(width=50), (10, 20), (25, 50)),
    (UpscaleSettings(height=33), (10, 20), (33, 66)),
    (UpscaleSettings(width=7, height=9), (10, 20), (9, 7)),
    (UpscaleSettings(fit=(100, 30)), (10, 20), (30, 60)),
    (UpscaleSettings(max_side=100), (10, 20), (50, 100)),
]


@pytest.mark.parametrize(("settings", "size", "expected"), SIZES)
def test_output_sizes_are_rounded_exactly(settings, size, expected):
    assert output_size(settings, size, 4) == expected


@pytest.mark.parametrize(
    "values",
    [
        {"scale": 0}, {"scale": -1}, {"scale": float("nan")}, {"scale": 65}, {"width": 0},
        {"strength": 1.1}, {"scale": 2, "width": 5}, {"fit": (0, 5)}, {"max_side": 5, "height": 1},
    ],
)  # fmt: skip
def test_sizes_that_make_no_sense(values):
    with pytest.raises(ConfigError):
        UpscaleSettings(**values)


@pytest.mark.parametrize("values", [{"tile": -1}, {"tile": "big"}, {"overlap": -1}, {"batch": 0}])
def test_engine_settings_that_make_no_sense(values):
    with pytest.raises(ConfigError):
        EngineSettings(**values)
