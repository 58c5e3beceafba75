"""The fused CPU path computes what the module computes, at any size and in any strips."""

from __future__ import annotations

import pytest
import torch

from realesr_cli.engine.backends import blocks, fused, onednn
from realesr_cli.engine.backends.fused import can_fuse
from realesr_cli.engine.backends.onednn import OneDnnBackend, fuse
from realesr_cli.engine.guard import build_forwards
from realesr_cli.engine.policy import MachineInfo, Policy
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.nets.rrdbnet import RRDBArchitecture, standard_architecture
from realesr_cli.nets.srresnet import SRResNetArchitecture

ARCHITECTURES = [
    standard_architecture(4, blocks=2, features=16, growth=8),
    standard_architecture(2, blocks=1, features=16, growth=8),
    standard_architecture(1, blocks=1, features=16, growth=8),
    RRDBArchitecture(2, 1, 16, 8),
    RRDBArchitecture(8, 1, 16, 8),
    RRDBArchitecture(1, 1, 16, 8),
    CompactArchitecture(4, 3, 16),
    CompactArchitecture(2, 2, 16, "relu"),
    CompactArchitecture(3, 2, 16, "leakyrelu"),
    RRDBArchitecture(3, 1, 16, 8),
    RRDBArchitecture(4, 1, 16, 8, in_channels=1, out_channels=1),
    RRDBArchitecture(2, 1, 16, 8, unshuffle=2, in_channels=4, out_channels=3),
    CompactArchitecture(2, 2, 16, in_channels=1, out_channels=3),
    CompactArchitecture(2, 2, 16, in_channels=4, out_channels=4),
]


def network(architecture):
    torch.manual_seed(3)
    net = architecture.build().eval()
    for name, parameter in net.named_parameters():
        if parameter.dim() == 1:
            parameter.data.uniform_(-0.1, 0.3)
        elif "rdb" in name:
            parameter.data.mul_(5)
    return net


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: f"{a.kind}-x{a.scale}")
@pytest.mark.parametrize("side", [8, 20, 10**9])
def test_fp32_equals_the_module(architecture, side, monkeypatch):
    """Blocks of at least the halo, of some size, and of the whole image; images of any size."""
    monkeypatch.setattr(blocks, "SMALLEST_SIDE", 8)
    monkeypatch.setattr(blocks, "FEWEST_BLOCKS", 1)
    for name in ("DENSE_SIDE", "COMPACT_SIDE", "TAIL_SIDE"):
        monkeypatch.setattr(fused, name, side)
    blocks.cut.cache_clear()
    net = network(architecture)
    forward = fuse(net, torch.float32, 2)
    for height, width in [(37, 45), (1, 1), (9, 64), (64, 3)]:
        x = torch.rand(2, architecture.in_channels, height, width)
        with torch.inference_mode():
            expected = net(x)
        torch.testing.assert_close(forward(x), expected, atol=2e-5, rtol=1e-5)
    blocks.cut.cache_clear()


@pytest.mark.parametrize("architecture", [ARCHITECTURES[0], ARCHITECTURES[6]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_number_of_workers_does_not_change_a_bit(architecture, dtype):
    net = network(architecture)
    x = torch.rand(1, 3, 120, 170)
    first, *others = (fuse(net, dtype, count)(x) for count in (1, 2, 3, 8))
    assert all(torch.equal(first, other) for other in others)


def test_results_stay_as_they_are_while_the_next_are_computed():
    """Memory is used again only when nobody holds a part of the result."""
    forward = fuse(network(ARCHITECTURES[6]), torch.float32, 2)
    images = torch.rand(4, 1, 3, 30, 40)
    whole = [forward(x) for x in images]
    parts = [forward(x)[:, :1, 2:] for x in images]
    for x, result, part in zip(images, whole, parts, strict=True):
        assert torch.equal(forward(x), result)
        assert torch.equal(part, result[:, :1, 2:])


def test_memory_is_used_again():
    scratch = blocks.Scratch()
    first = scratch.take_result(1, 3, 40, 50)
    address = first.data_ptr()
    part = first[:, :1]
    del first
    other = scratch.take_result(1, 3, 40, 50)
    assert other.data_ptr() != address
    del part
    assert scratch.take_result(1, 3, 40, 49).data_ptr() == address


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: f"{a.kind}-x{a.scale}")
def test_bf16_is_close(architecture):
    net = network(architecture)
    x = torch.rand(1, architecture.in_channels, 24, 40)
    with torch.inference_mode():
        expected = net(x)
    error = fuse(net, torch.bfloat16, 2)(x) - expected
    assert float(error.std() / expected.std()) < 0.02


def test_the_network_is_left_as_it_was():
    net = network(ARCHITECTURES[0])
    before = {k: v.clone() for k, v in net.state_dict().items()}
    fuse(net, torch.bfloat16, 2)(torch.rand(1, 3, 8, 8))
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


@pytest.mark.parametrize("architecture", [ARCHITECTURES[0], ARCHITECTURES[6]])
def test_later_changes_of_the_network_have_no_effect(architecture):
    """A network that trains on, or moves, while its fused form is in use."""
    net = network(architecture).bfloat16()
    forward = fuse(net, torch.float32, 2)
    x = torch.rand(1, 3, 9, 11)
    before = forward(x)
    for parameter in net.parameters():
        parameter.data.zero_()
    assert torch.equal(forward(x), before)


def test_the_cpu_fallback_needs_no_fused_operators(monkeypatch):
    """A GPU machine whose processor lacks them still ends on the CPU, by the module."""
    monkeypatch.setattr(onednn, "fuse", lambda *_: pytest.fail("must not be tried"))
    net = network(ARCHITECTURES[0])
    policy = Policy("meta", "fp32", "torch", 64, 8, 1, 1)
    forwards = build_forwards(net, policy, MachineInfo(backends=frozenset({"torch"})))
    x = torch.rand(1, 3, 8, 8)
    with torch.inference_mode():
        torch.testing.assert_close(forwards.cpu(x), net(x))


def test_networks_without_a_fused_form_are_not_supported():
    backend = OneDnnBackend()
    assert not backend.supports(RRDBArchitecture(4, 1, 8, 4, 1, True), "cpu", "fp32")
    assert not backend.supports(SRResNetArchitecture(), "cpu", "fp32")
    assert not backend.supports(CompactArchitecture(), "cpu", "fp16")
    assert not backend.supports(CompactArchitecture(), "cuda:0", "fp32")


def test_availability_is_checked_by_computing(monkeypatch):
    class Wrong:
        @staticmethod
        def _reorder_convolution_weight(weight, *rest):
            return weight

        @staticmethod
        def _convolution_pointwise(x, *rest):
            return torch.zeros_like(x)

    class Missing:
        pass

    assert isinstance(can_fuse(), bool)
    for stand_in in (Wrong, Missing):
        monkeypatch.setattr(fused, "_OPS", stand_in)
        assert fused.can_fuse.__wrapped__() is False


def test_what_is_missing_is_named_with_the_command_that_helps(monkeypatch):
    monkeypatch.setattr(onednn, "can_fuse", lambda: False)
    found = OneDnnBackend().availability(MachineInfo())
    assert not found.usable
    assert "oneDNN" in found.reason
    assert found.fix.startswith("pip install")
