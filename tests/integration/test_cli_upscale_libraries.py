"""`realesr upscale` on a server where OpenCV cannot be loaded."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as pillow
from upscale_cli import Shell, make_image, size_of


class _NoLibGL:
    """Import of cv2 as it fails where libGL is missing."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "cv2":
            raise ImportError("libGL.so.1: cannot open shared object file")


@pytest.fixture
def no_libgl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "cv2")
    monkeypatch.setattr(sys, "meta_path", [_NoLibGL(), *sys.meta_path])


@pytest.fixture
def deep() -> None:
    """Images of 16 bits in the current folder: color, and gray."""
    color = np.arange(8 * 12 * 3, dtype=np.uint16).reshape(8, 12, 3) * 200
    cv2.imwrite("deep.png", color)
    pillow.fromarray(np.ascontiguousarray(color[..., 0])).save("gray16.png")


def test_eight_bits_need_no_opencv_and_deep_color_names_the_package(
    shell: Shell, deep: None, no_libgl: None
):
    eight = ["a.png", "b.jpg", "c.webp", "d.tif", "e.gif", "f.bmp", "g.avif"]
    for name in eight:
        make_image(name, mode="L" if name == "e.gif" else "RGB")
    make_image("alpha.png", mode="RGBA")
    outcome = shell(*eight, "alpha.png", "gray16.png", "deep.png", "-s", "2.5", "-o", "out/")
    assert outcome.code == 1
    assert "9 done, 1 failed" in outcome.err
    assert "deep.png" in outcome.err
    assert "libgl1" in outcome.err
    assert len(os.listdir("out")) == 9
    assert all(size_of(path) == (30, 20) for path in Path("out").iterdir())
    assert "cv2" not in sys.modules
