"""The U-Net discriminator computes what the original implementation computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from realesr_cli.nets.discriminators import UNetDiscriminator


def original_weights(net: torch.nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """Weights that anyone can make again: drawn in the order of the sorted key names."""
    rs = np.random.RandomState(seed)
    state = {}
    for key, tensor in sorted(net.state_dict().items()):
        drawn = rs.standard_normal(tuple(tensor.shape))
        if key.endswith(("weight_u", "weight_v")):
            drawn = drawn / np.linalg.norm(drawn)
        else:
            drawn = drawn * 0.05
        state[key] = torch.from_numpy(drawn.astype(np.float32))
    return state


def test_output_equals_the_original_after_the_spectral_norm_has_converged() -> None:
    net = UNetDiscriminator()
    net.load_state_dict(original_weights(net, 8))
    x = torch.from_numpy(np.random.RandomState(108).rand(1, 3, 32, 48).astype(np.float32))
    for module in net.modules():
        if hasattr(module, "normalized_weight"):
            for _ in range(200):
                module.normalized_weight()
    with torch.no_grad():
        got = net.eval()(x).numpy()
    wanted = np.load(Path(__file__).parent / "data" / "discriminator.npz")["unet_d_eval_seed8"]
    np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())
