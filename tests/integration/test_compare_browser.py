"""The page of `realesr compare` in a headless Chromium: what is seen when it is used.

The images tell where their pixels are from: red is the column, green the row, blue the version.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from comparison_samples import SCALE, comparison, photo, summary
from numpy.typing import NDArray
from PIL import Image as pillow

from realesr_cli.evaluate.comparison import Comparison, PhotoVersion
from realesr_cli.evaluate.page import write_page
from realesr_cli.image.types import Image

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

pytestmark = pytest.mark.slow

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--force-color-profile=srgb",
)
BICUBIC, NET, INPUT = 0, 255, 128
"""Blue of the versions."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    found = [path for name in NAMES if (path := shutil.which(name))]
    assert found, f"this test needs a browser: one of {', '.join(NAMES)}"
    with sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=found[0], args=ARGUMENTS)
        yield browser
        browser.close()


@dataclasses.dataclass
class Tab:
    """A page in the browser, with what it asked for and said."""

    page: Page
    asked: list[str]
    said: list[str]

    @property
    def stage(self) -> dict[str, float]:
        """The place of the viewer."""
        box = self.page.locator("#stage").bounding_box()
        assert box is not None
        return dict(box)

    def seen(self) -> NDArray[np.uint8]:
        """The viewer as it is on the screen, (height, width, 3)."""
        with pillow.open(BytesIO(self.page.locator("#stage").screenshot())) as image:
            return np.array(image.convert("RGB"))

    def drag(self, start: tuple[float, float], way: tuple[float, float]) -> None:
        """With the mouse, from a place in the viewer."""
        stage, mouse = self.stage, self.page.mouse
        x, y = stage["x"] + start[0], stage["y"] + start[1]
        mouse.move(x, y)
        mouse.down()
        mouse.move(x + way[0] / 2, y + way[1] / 2)
        mouse.move(x + way[0], y + way[1])
        mouse.up()

    def wheel(self, at: tuple[float, float], turns: float) -> None:
        """Turn the wheel over a place in the viewer; below zero zooms in."""
        stage = self.stage
        self.page.mouse.move(stage["x"] + at[0], stage["y"] + at[1])
        self.page.mouse.wheel(0, turns)
        self.page.wait_for_timeout(100)

    @property
    def zoom(self) -> str:
        return self.page.locator("#zoom").inner_text()

    @property
    def border(self) -> float:
        """The border's place, from the left of the viewer."""
        box = self.page.locator("#handle").bounding_box()
        assert box is not None
        return box["x"] + box["width"] / 2 - self.stage["x"]

    def clip(self) -> str:
        """What is cut from the right image."""
        found: str = self.page.evaluate(
            "getComputedStyle(document.querySelector('#right')).clipPath"
        )
        return found


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1000, "height": 800}, color_scheme="light")
    yield context
    context.close()


def opened(context: BrowserContext, path: Path, what: Comparison) -> Tab:
    write_page(what, path)
    tab = Tab(context.new_page(), [], [])
    tab.page.on("request", lambda request: tab.asked.append(request.url))
    tab.page.on("console", lambda message: tab.said.append(message.text))
    tab.page.on("pageerror", lambda error: tab.said.append(str(error)))
    tab.page.goto(path.as_uri())
    return tab


@pytest.fixture
def tab(context: BrowserContext, tmp_path: Path) -> Iterator[Tab]:
    """A page with one photo, 256x192 in its enlarged versions; nothing may be asked or said."""
    tab = opened(context, tmp_path / "report.html", comparison())
    yield tab
    assert [url for url in tab.asked if not url.startswith("data:")] == [
        (tmp_path / "report.html").as_uri()
    ]
    assert tab.said == []


def middle_row(seen: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A row a little below the middle, where no label and no grip is."""
    return seen[seen.shape[0] // 2 + 60]


def blue(seen: NDArray[np.uint8], x: float) -> int:
    return int(middle_row(seen)[round(x), 2])


def test_both_sides_of_the_border(tab: Tab) -> None:
    seen, middle = tab.seen(), tab.stage["width"] / 2
    assert abs(tab.border - middle) < 1
    assert blue(seen, middle - 30) == BICUBIC
    assert blue(seen, middle + 30) == NET
    assert tab.zoom == "100 %", "a small image is not enlarged to fit"


@pytest.mark.parametrize("mode", ["slider", "side", "flip"])
@pytest.mark.parametrize(("width", "dots"), [(1000, 1.0), (1001, 1.0), (777, 1.5), (901, 2.0)])
def test_images_are_shown_pixel_by_pixel(
    browser: Browser, tmp_path: Path, mode: str, width: int, dots: float
) -> None:
    """At 100 % a pattern of single pixels is neither blurred nor shifted by half a pixel."""
    rows, columns = np.indices((192, 256))
    chequered = Image(np.where((rows + columns) % 2, 255, 0).astype(np.uint8)[..., None])
    one = photo()
    versions = tuple(
        v if v.kind == "input" else dataclasses.replace(v, img=chequered) for v in one.versions
    )
    context = browser.new_context(
        viewport={"width": width, "height": 803}, device_scale_factor=dots
    )
    what = comparison(dataclasses.replace(one, versions=versions))
    tab = opened(context, tmp_path / "report.html", what)
    tab.page.click(f"button[data-mode={mode}]")
    assert tab.zoom == "100 %"
    seen = tab.seen()[..., 0].astype(int)
    height, wide = seen.shape
    places = (wide // 4, 3 * wide // 4) if mode == "side" else (wide // 2 - 60, wide // 2 + 60)
    for x in places:
        part = seen[height // 2 + 40 : height // 2 + 80, x - 20 : x + 20]
        assert set(np.unique(part)) == {0, 255}
        assert (np.abs(np.diff(part, axis=0)) == 255).all()
        assert (np.abs(np.diff(part, axis=1)) == 255).all()
    context.close()


def test_border_follows_the_mouse(tab: Tab) -> None:
    middle, height = tab.stage["width"] / 2, tab.stage["height"]
    tab.drag((middle, height / 2), (-80, 30))
    assert abs(tab.border - (middle - 80)) < 1.5
    assert f"{round(tab.border)}" in tab.clip()
    seen = tab.seen()
    assert blue(seen, middle - 90) == BICUBIC
    assert blue(seen, middle - 60) == NET
    tab.drag((middle - 80, height / 2), (170, 0))
    seen = tab.seen()
    assert blue(seen, middle + 70) == BICUBIC
    assert blue(seen, middle + 105) == NET


def test_a_click_beside_moves_the_border_where_all_is_seen(tab: Tab) -> None:
    middle = tab.stage["width"] / 2
    tab.drag((middle + 90, tab.stage["height"] / 2), (0, 0))
    assert abs(tab.border - (middle + 90)) < 1.5


def test_border_follows_the_keys(tab: Tab) -> None:
    handle, width = tab.page.locator("#handle"), tab.stage["width"]
    handle.focus()
    tab.page.keyboard.press("ArrowLeft")
    assert abs(tab.border - 0.49 * width) < 1
    tab.page.keyboard.press("Shift+ArrowRight")
    assert abs(tab.border - 0.59 * width) < 1
    assert handle.get_attribute("aria-valuenow") == "59"
    assert "bicubic" in str(handle.get_attribute("aria-valuetext"))
    assert blue(tab.seen(), 0.59 * width - 10) == BICUBIC
    tab.page.keyboard.press("Home")
    assert blue(tab.seen(), width / 2) == NET
    tab.page.keyboard.press("End")
    assert blue(tab.seen(), width / 2) == BICUBIC


def test_border_is_reached_by_tab_and_shows_it(tab: Tab) -> None:
    tab.page.locator("#stage").focus()
    tab.page.keyboard.press("Tab")
    assert tab.page.evaluate("document.activeElement.id") == "handle"
    assert tab.page.evaluate("document.activeElement.matches(':focus-visible')")


def test_choice_of_both_sides(tab: Tab) -> None:
    page, middle = tab.page, tab.stage["width"] / 2
    assert page.locator("#choose-left option").all_inner_texts() == ["input", "bicubic", "net"]
    page.select_option("#choose-left", label="net")
    page.select_option("#choose-right", label="input")
    seen = tab.seen()
    assert (blue(seen, middle - 30), blue(seen, middle + 30)) == (NET, INPUT)
    assert page.locator("#left .tag").inner_text().startswith("net")
    assert "NIQE 4.500" in page.locator("#left .tag").inner_text()
    page.click("#swap")
    seen = tab.seen()
    assert (blue(seen, middle - 30), blue(seen, middle + 30)) == (INPUT, NET)
    assert page.locator("#choose-right").input_value() == "2"


def test_input_lies_under_its_results(tab: Tab) -> None:
    """One pixel of the input covers four by four of the results, in the same place."""
    tab.page.select_option("#choose-left", label="input")
    seen, stage = tab.seen(), tab.stage
    left = round((stage["width"] - 256) / 2)
    row = middle_row(seen)[left : left + 120, 0]
    assert np.array_equal(row, np.arange(30).repeat(SCALE))


def coordinates(pixel: NDArray[np.uint8]) -> tuple[int, int]:
    """Column and row of the image."""
    return int(pixel[0]), int(pixel[1])


def test_side_by_side_moves_and_zooms_both(tab: Tab) -> None:
    page = tab.page
    page.click("button[data-mode=side]")
    assert page.locator("#handle").is_hidden()
    half, height = tab.stage["width"] / 2, tab.stage["height"]

    def pair() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        seen = tab.seen()
        y, x = round(height / 2), round(half / 2)
        return seen[y, x], seen[y, x + round(half) + 1]

    left, right = pair()
    assert coordinates(left) == coordinates(right)
    assert (left[2], right[2]) == (BICUBIC, NET)
    for _ in range(6):
        page.click("#in")
    assert tab.zoom == "1139 %"
    before, _ = pair()
    tab.drag((half / 2, height / 2), (-150, -100))
    left, right = pair()
    assert coordinates(left) == coordinates(right)
    moved = left.astype(int) - before.astype(int)
    assert abs(moved[0] - 150 / 11.39) <= 1
    assert abs(moved[1] - 100 / 11.39) <= 1
    tab.drag((half * 1.5, height / 2), (150, 100))
    left, right = pair()
    assert coordinates(left) == coordinates(right) == coordinates(before)


def test_wheel_zooms_about_the_pointer_in_either_pane(tab: Tab) -> None:
    tab.page.click("button[data-mode=side]")
    half, height = tab.stage["width"] / 2, tab.stage["height"]
    tab.wheel((half / 2, height / 2), -300)
    tab.wheel((half / 2, height / 2), -300)
    at = (round(half + 1 + half / 2 + 100), round(height / 2 + 60))
    twin = (at[0] - round(half) - 1, at[1])
    before = tab.seen()
    zoom = tab.zoom
    tab.wheel(at, -300)
    tab.wheel(at, -300)
    assert tab.zoom != zoom
    seen = tab.seen()
    for x, y in (at, twin):
        change = np.abs(seen[y, x].astype(int) - before[y, x].astype(int))
        assert change.max() <= 1, "what was under the pointer has moved"
    assert coordinates(seen[at[1], at[0]]) == coordinates(seen[twin[1], twin[0]])


def test_above_full_size_pixels_are_squares(tab: Tab) -> None:
    for _ in range(6):
        tab.page.click("#in")
    row = middle_row(tab.seen())[:400]
    steps = np.flatnonzero(np.diff(row[:, 0].astype(int)))
    assert len(steps) > 20
    assert set(np.diff(steps)) <= {11, 12}, "pixels are blurred into each other"


def test_zoom_by_buttons_and_keys(tab: Tab) -> None:
    page = tab.page
    page.click("#in")
    assert tab.zoom == "150 %"
    page.click("#out")
    assert tab.zoom == "100 %"
    page.locator("#stage").focus()
    page.keyboard.press("+")
    page.keyboard.press("+")
    assert tab.zoom == "225 %"
    page.keyboard.press("1")
    assert tab.zoom == "100 %"
    page.keyboard.press("-")
    assert page.locator("#fit").is_disabled()
    for _ in range(30):
        page.keyboard.press("+")
    assert tab.zoom == "3200 %"
    page.keyboard.press("0")
    assert tab.zoom == "100 %"


def test_keys_move_the_images(tab: Tab) -> None:
    page = tab.page
    page.select_option("#choose-left", label="net")
    page.locator("#stage").focus()
    for _ in range(6):
        page.keyboard.press("+")
    at = round(tab.stage["height"] / 2 + 60), round(tab.stage["width"] / 2 + 60)
    before = tab.seen()[at].astype(int)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    moved = tab.seen()[at].astype(int) - before
    assert abs(moved[0] - 50 / 11.39) <= 1
    assert abs(moved[1] - 50 / 11.39) <= 1


def test_images_cannot_be_lost(tab: Tab) -> None:
    for _ in range(6):
        tab.page.click("#in")
    for _ in range(6):
        tab.drag((100, 100), (700, 400))
    assert coordinates(tab.seen()[-20, 20])[0] <= 3
    assert coordinates(tab.seen()[100, 20])[1] <= 20


def test_fit_shrinks_large_images(context: BrowserContext, tmp_path: Path) -> None:
    wide = Image(np.tile(np.uint8([[[200, 100, 50]]]), (100, 4000, 1)))
    one = photo()
    versions = [dataclasses.replace(v, img=wide) for v in one.versions]
    versions[0] = dataclasses.replace(versions[0], img=Image(wide.pixels[:25, :1000]))
    what = comparison(dataclasses.replace(one, height=100, width=4000, versions=tuple(versions)))
    tab = opened(context, tmp_path / "wide.html", what)
    width = tab.stage["width"]
    assert tab.zoom == f"{round(100 * width / 4000)} %"
    shown = (middle := tab.seen()[round(tab.stage["height"] / 2) - 5])[:, 0] == 200
    assert shown[:400].all(), middle[:3]
    assert shown[-400:].all()
    tab.page.set_viewport_size({"width": 700, "height": 800})
    tab.page.wait_for_timeout(100)
    assert tab.zoom == f"{round(100 * tab.stage['width'] / 4000)} %"
    tab.page.click("#one")
    assert tab.zoom == "100 %"


def test_full_size_means_pixels_of_the_screen(browser: Browser, tmp_path: Path) -> None:
    context = browser.new_context(viewport={"width": 700, "height": 700}, device_scale_factor=2)
    tab = opened(context, tmp_path / "report.html", comparison())
    assert tab.zoom == "100 %"
    row = middle_row(tab.seen())
    inside = np.flatnonzero(row[:, 2] == BICUBIC)
    left = int(inside[0])
    assert np.array_equal(row[left : left + 100, 0], np.arange(100))
    context.close()


def test_flip_shows_one_at_a_time(tab: Tab) -> None:
    page, middle = tab.page, tab.stage["width"] / 2
    page.click("button[data-mode=flip]")
    first = tab.seen()
    assert blue(first, middle - 60) == blue(first, middle + 60) == BICUBIC
    tab.drag((middle, 100), (0, 0))
    second = tab.seen()
    assert blue(second, middle - 60) == blue(second, middle + 60) == NET
    page.keyboard.press(" ")
    assert blue(tab.seen(), middle) == BICUBIC


def test_two_fingers_zoom(browser: Browser, tmp_path: Path) -> None:
    context = browser.new_context(viewport={"width": 800, "height": 800}, has_touch=True)
    tab = opened(context, tmp_path / "report.html", comparison())
    stage = tab.stage
    x, y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2 + 80
    session = context.new_cdp_session(tab.page)

    def touch(kind: str, apart: float) -> None:
        fingers = [{"x": x + sign * apart, "y": y, "id": n} for n, sign in enumerate((-1, 1))]
        points = [] if kind == "touchEnd" else fingers
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 50)
    for apart in (60, 80, 100, 150):
        touch("touchMove", apart)
    touch("touchEnd", 0)
    tab.page.wait_for_timeout(100)
    assert abs(int(tab.zoom.split()[0]) - 300) <= 10
    assert tab.said == []
    context.close()


def test_several_photos(context: BrowserContext, tmp_path: Path) -> None:
    second = photo("second.png", 32, 48, notes=("a note",))
    tab = opened(context, tmp_path / "report.html", comparison(photo(), second))
    page = tab.page
    assert page.locator("article:visible h2").all_inner_texts() == ["photo.png"]
    page.select_option("#photo", label="second.png")
    assert page.locator("article:visible h2").all_inner_texts() == ["second.png"]
    seen = tab.seen()
    row = seen[seen.shape[0] // 2 + 40]
    shown = np.flatnonzero((row[:, 2] == BICUBIC) | (row[:, 2] == NET))
    assert abs((shown[-1] - shown[0] + 1) - 48 * SCALE) <= 2
    assert tab.said == []


def test_checkerboard_behind_transparency(context: BrowserContext, tmp_path: Path) -> None:
    clear = Image(np.zeros((192, 256, 3), np.uint8), np.zeros((192, 256), np.uint8))
    one = photo()
    versions = (*one.versions[:2], PhotoVersion("net", "model", clear))
    tab = opened(
        context, tmp_path / "report.html", comparison(dataclasses.replace(one, versions=versions))
    )
    for zoom in (1, 2):
        seen, middle = tab.seen(), round(tab.stage["width"] / 2)
        row = middle_row(seen)[middle + 30 : middle + 110, 0]
        assert set(np.unique(row)) == {207, 255}
        runs = np.diff(np.flatnonzero(np.diff(row.astype(int))))
        assert set(runs) <= {7, 8, 9}, f"squares of another size at zoom {zoom}"
        tab.page.click("#in")


def test_markup_in_names_does_nothing(context: BrowserContext, tmp_path: Path) -> None:
    name = '"><script>window.harm = 1</script><img src=x onerror="window.harm = 1">.png'
    one = photo(name, notes=(name,))
    named = dataclasses.replace(one.versions[2], name=name)
    what = Comparison(
        SCALE, (summary(name),), (dataclasses.replace(one, versions=(*one.versions[:2], named)),)
    )
    tab = opened(context, tmp_path / "report.html", what)
    assert tab.page.evaluate("window.harm") is None
    assert tab.page.locator("h1").inner_text() == name
    assert tab.page.locator("#right .tag").inner_text().startswith(name)
    assert tab.said == []
    assert len([url for url in tab.asked if not url.startswith("data:")]) == 1


def test_policy_stops_requests_and_scripts(context: BrowserContext, tmp_path: Path) -> None:
    tab = opened(context, tmp_path / "report.html", comparison())
    stopped: list[Any] = tab.page.evaluate(
        """async () => {
            const stopped = [];
            document.addEventListener("securitypolicyviolation", (event) => {
                stopped.push(event.effectiveDirective);
            });
            new Image().src = "http://127.0.0.1:9/image.png";
            await fetch("http://127.0.0.1:9/data").catch(() => {});
            const script = document.createElement("script");
            script.textContent = "window.harm = 1";
            document.body.append(script);
            await new Promise((resolve) => setTimeout(resolve, 200));
            return stopped;
        }"""
    )
    assert sorted(stopped) == ["connect-src", "img-src", "script-src-elem"]
    assert tab.page.evaluate("window.harm") is None


def test_without_scripts_the_images_are_listed(browser: Browser, tmp_path: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    tab = opened(context, tmp_path / "report.html", comparison())
    assert tab.page.locator("figure img:visible").count() == 3
    assert tab.page.locator("#viewer").is_hidden()
    context.close()


def test_dark(browser: Browser, tmp_path: Path) -> None:
    context = browser.new_context(color_scheme="dark")
    tab = opened(context, tmp_path / "report.html", comparison())
    colors = tab.page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    back, front = (
        [int(part) for part in text.removeprefix("rgb(").removesuffix(")").split(",")]
        for text in colors
    )
    assert max(back) < 40
    assert min(front) > 200
    context.close()


def test_nothing_runs_over_on_a_phone(browser: Browser, tmp_path: Path) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 800}, has_touch=True)
    tab = opened(context, tmp_path / "report.html", comparison(photo(), photo("long name" * 9)))
    width = tab.page.evaluate("document.documentElement.scrollWidth")
    assert width <= 390
    context.close()
