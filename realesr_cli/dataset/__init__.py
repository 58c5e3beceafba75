"""Training images: checked and prepared before training."""
