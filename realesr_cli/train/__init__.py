"""The training loop, its configuration, data, losses and checkpoints."""
