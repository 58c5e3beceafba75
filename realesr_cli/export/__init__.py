"""Models as files for other programs, verified against the source model."""
