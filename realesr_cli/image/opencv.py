"""OpenCV, loaded only where deep color needs it, so that a server without libGL does the rest."""

from __future__ import annotations

import importlib
from types import ModuleType

from realesr_cli.errors import MissingDependencyError


def load_opencv(purpose: str) -> ModuleType:
    """The module `cv2`.

    `purpose` completes "OpenCV is needed ..." in the message. Raises MissingDependency where it
    is not installed or a system library it wants is missing.
    """
    try:
        return importlib.import_module("cv2")
    except ImportError as error:
        raise MissingDependencyError(
            f"OpenCV is needed {purpose}, and it cannot be loaded ({error}). On a server without a "
            "screen install the system packages libgl1 and libglib2.0-0 (apt), or replace "
            "opencv-python by opencv-python-headless (pip)"
        ) from error
