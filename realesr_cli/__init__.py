"""Enlarge and restore pictures with Real-ESRGAN and ESRGAN models, and train your own."""

from __future__ import annotations

__version__ = "0.1.0"
