"""Draw docs/images/before-after.jpg, the image of the README.

`python docs/draw_before_after.py [MODEL]`: images/lighthouse.jpg by bicubic (left) and by MODEL
(right). The README shows photo, which was not trained on this image.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from realesr_cli.engine.settings import UpscaleSettings
from realesr_cli.engine.upscaler import Upscaler
from realesr_cli.image.read import from_array, read_image
from realesr_cli.image.write import WriteSettings, write_image
from realesr_cli.weights.load import open_model

IMAGES = Path(__file__).parent / "images"
GAP = 8


def main() -> None:
    """Draw both halves side by side with a white gap."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="photo")
    model = parser.parse_args().model
    photo = read_image(IMAGES / "lighthouse.jpg")
    upscaler = Upscaler(open_model(model).net)
    before = upscaler(photo, UpscaleSettings(scale=4, strength=0)).pixels
    after = upscaler(photo, UpscaleSettings(scale=4)).pixels
    gap = np.full((before.shape[0], GAP, 3), 255, np.uint8)
    both = np.concatenate([before, gap, after], axis=1)
    write_image(from_array(both), IMAGES / "before-after.jpg", WriteSettings(quality=88))


if __name__ == "__main__":
    main()
