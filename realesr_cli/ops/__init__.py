"""Pure tensor functions on (B, C, H, W) in [0, 1]."""
