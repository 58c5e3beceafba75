"""Whole films: decoded, upscaled and encoded in chunks that survive any interruption."""
