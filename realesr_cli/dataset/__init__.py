"""Training images: check them and cut them into crops."""
