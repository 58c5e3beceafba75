"""The fused CPU path computes what the module computes, at any size and in any strips."""

from __future__ import annotations

import pytest
import torch

from realesr_cli.engine.backends import onednn
from realesr_cli.engine.backends.onednn import OneDnnBackend, can_fuse, fuse
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
@pytest.mark.parametrize("strip", [1, 20_000, 10**9])
def test_fp32_equals_the_module(architecture, strip, monkeypatch):
    """Strips of 8 rows, of some, and of all rows; images down to one pixel."""
    monkeypatch.setattr(onednn, "STRIP_BYTES", strip)
    net = network(architecture)
    forward = fuse(net, torch.float32)
    for height, width in [(37, 45), (1, 1), (9, 64), (64, 3)]:
        x = torch.rand(2, architecture.in_channels, height, width)
        with torch.inference_mode():
            expected = net(x)
        torch.testing.assert_close(forward(x), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: f"{a.kind}-x{a.scale}")
def test_bf16_is_close(architecture):
    net = network(architecture)
    x = torch.rand(1, architecture.in_channels, 24, 40)
    with torch.inference_mode():
        expected = net(x)
    error = fuse(net, torch.bfloat16)(x) - expected
    assert float(error.std() / expected.std()) < 0.02


def test_the_network_is_left_as_it_was():
    net = network(ARCHITECTURES[0])
    before = {k: v.clone() for k, v in net.state_dict().items()}
    fuse(net, torch.bfloat16)(torch.rand(1, 3, 8, 8))
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


@pytest.mark.parametrize("architecture", [ARCHITECTURES[0], ARCHITECTURES[6]])
def test_later_changes_of_the_network_have_no_effect(architecture):
    """A network that trains on, or moves, while its fused form is in use."""
    net = network(architecture).bfloat16()
    forward = fuse(net, torch.float32)
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
        monkeypatch.setattr(onednn, "_OPS", stand_in)
        assert onednn.can_fuse.__wrapped__() is False


def test_what_is_missing_is_named_with_the_command_that_helps(monkeypatch):
    monkeypatch.setattr(onednn, "can_fuse", lambda: False)
    found = OneDnnBackend().availability(MachineInfo())
    assert not found.usable
    assert "oneDNN" in found.reason
    assert found.fix.startswith("pip install")
