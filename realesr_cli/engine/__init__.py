"""Inference: tiles, blending, guard, device policy, and the `Upscaler` built from them."""
