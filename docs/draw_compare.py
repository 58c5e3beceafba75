"""Draw docs/images/compare.jpg: the page of `realesr compare` in a browser.

`python docs/draw_compare.py MODEL MODEL`; needs playwright and Chromium.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from realesr_cli.evaluate.page import write_page
from realesr_cli.evaluate.side_by_side import compare

IMAGES = Path(__file__).resolve().parent / "images"
WIDTH, HEIGHT = 1200, 700


def screenshot(page: Path) -> bytes:
    """Return the page as PNG, with the slider off center."""
    with sync_playwright() as tools:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        browser = tools.chromium.launch(
            executable_path=program, args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        tab = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        tab.goto(page.as_uri())
        tab.click("#one")
        tab.focus("#handle")
        for _ in range(8):
            tab.keyboard.press("ArrowLeft")
        tab.mouse.click(5, 5)
        return tab.screenshot()


def main() -> None:
    """Compare the models on a photo and save a screenshot of the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+")
    models = parser.parse_args().models
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        write_page(compare([IMAGES / "colosseum.jpg"], models), page)
        with Image.open(BytesIO(screenshot(page))) as image:
            image.convert("RGB").save(IMAGES / "compare.jpg", quality=85)


if __name__ == "__main__":
    main()
