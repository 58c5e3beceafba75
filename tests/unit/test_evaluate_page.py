"""The page of a comparison: what is in it, that it holds all it shows, and that text stays text."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparison_samples import SCALE, comparison, photo, summary
from PIL import Image as pillow
from PIL import ImageCms

from realesr_cli.errors import ConfigError, RealesrWarning, WriteError
from realesr_cli.evaluate import page
from realesr_cli.evaluate.comparison import Comparison, PhotoVersion, WeightsFile
from realesr_cli.evaluate.page import data_uri, page_parts, write_page
from realesr_cli.evaluate.sets import Failure
from realesr_cli.evaluate.settings import PageSettings
from realesr_cli.image.types import Image

HOSTILE = '"><script>alert("x")<img src=x onerror=alert(1)>&amp;{{title}}\'.png'


class Outline(HTMLParser):
    """Elements with their attributes, and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def rendered(what: Comparison, **given: Any) -> str:
    return "".join(page_parts(what, PageSettings(**given)))


def decoded(uri: str | None) -> np.ndarray:
    assert uri is not None
    head, _, data = uri.partition(",")
    assert head in ("data:image/webp;base64", "data:image/png;base64")
    with pillow.open(BytesIO(base64.b64decode(data, validate=True))) as image:
        return np.array(image)


def images(text: str) -> list[np.ndarray]:
    return [decoded(attributes["src"]) for attributes in Outline(text).all("img")]


def test_images_are_exact() -> None:
    what = comparison()
    found = images(rendered(what))
    assert len(found) == 3
    for version, pixels in zip(what.photos[0].versions, found, strict=True):
        assert np.array_equal(pixels, version.image.pixels)


def test_gray_and_hidden_color_are_exact() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)
    alpha = rng.integers(0, 2, (9, 7), dtype=np.uint8) * 255
    assert np.array_equal(decoded(data_uri(Image(pixels, alpha))), np.dstack([pixels, alpha]))
    gray = decoded(data_uri(Image(pixels[..., :1])))
    assert np.array_equal(gray[..., :1], pixels[..., :1])
    assert np.array_equal(gray[..., 0], gray[..., 2])


def test_sizes_and_places_for_the_viewer() -> None:
    outline = Outline(rendered(comparison()))
    (article,) = outline.all("article")
    assert (article["data-width"], article["data-height"]) == ("256", "192")
    figures, imgs = outline.all("figure"), outline.all("img")
    assert [f["data-factor"] for f in figures] == [str(SCALE), "1", "1"]
    assert [(p["width"], p["height"]) for p in imgs] == [
        ("64", "48"),
        ("256", "192"),
        ("256", "192"),
    ]
    assert [p["alt"] for p in imgs] == [
        "photo.png, input",
        "photo.png, bicubic",
        "photo.png, net",
    ]
    assert not any("data-alpha" in f for f in figures)


def test_alpha_is_marked() -> None:
    img = Image(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8))
    one = dataclasses.replace(
        photo(), versions=(PhotoVersion("input", "input", img), *photo().versions[1:])
    )
    figures = Outline(rendered(comparison(one))).all("figure")
    assert ["data-alpha" in f for f in figures] == [True, False, False]


def test_lossy_images_are_smaller_but_not_the_input() -> None:
    rng = np.random.default_rng(0)
    noise = Image(rng.integers(0, 256, (192, 256, 3), dtype=np.uint8))
    before = photo()
    versions = (
        before.versions[0],
        *(dataclasses.replace(v, image=noise) for v in before.versions[1:]),
    )
    what = comparison(dataclasses.replace(before, versions=versions))
    exact, lossy = rendered(what), rendered(what, quality=80)
    assert len(lossy) < 0.7 * len(exact)
    assert np.array_equal(images(lossy)[0], before.versions[0].image.pixels)
    assert not np.array_equal(images(lossy)[1], noise.pixels)
    assert "WebP of quality 80" in Outline(lossy).text
    assert "losslessly" in Outline(exact).text


def test_longer_than_webp_goes_as_png(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "_WEBP_SIDE", 100)
    what = comparison()
    kinds = [str(p["src"])[:15] for p in Outline(rendered(what)).all("img")]
    assert kinds == ["data:image/webp", "data:image/png;", "data:image/png;"]
    assert np.array_equal(images(rendered(what))[1], what.photos[0].versions[1].image.pixels)


def test_a_profile_goes_along_unless_it_is_srgb() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for icc, kept in ((b"some other profile", True), (srgb, False), (None, False)):
        data = data_uri(Image(pixels, icc=icc)).partition(",")[2]
        with pillow.open(BytesIO(base64.b64decode(data))) as image:
            assert ("icc_profile" in image.info) is kept


def test_scores_times_and_settings_are_shown() -> None:
    text = Outline(rendered(comparison(photo(notes=("shown with 8",))))).text
    for words in ("NIQE ↓", "5.250", "4.500", "1.25 s", "256 x 192", "Shown with 8.", "a network",
                  "net.pth", "0123456789abcdef" * 4, "MIT", "cpu, fp32", "160 pixels, overlap 10",
                  "upscaled x4 by bicubic and net", "exclude 4 border pixels",
                  "realesr-cli"):  # fmt: skip
        assert words in text, words


def test_the_best_score_is_marked() -> None:
    text = rendered(comparison())
    assert '<td class="best">4.500</td>' in text
    assert '<td class="best">5.250</td>' not in text


def test_whole_images_and_mixtures_are_shown() -> None:
    files = (WeightsFile("a.pth", "a" * 64, 0.2), WeightsFile("b.pth", "b" * 64, 0.8))
    model = dataclasses.replace(summary(), tile=0, files=files)
    text = Outline(rendered(dataclasses.replace(comparison(), models=(model,)))).text
    for words in ("whole image", "a.pth (20%)", "b.pth (80%)", "a" * 64, "b" * 64):
        assert words in text, words


def test_what_failed_is_shown() -> None:
    what = dataclasses.replace(comparison(), failures=(Failure("<b>", "<b>: is no image"),))
    assert "Excluded: <b>: is no image" in Outline(rendered(what)).text


def test_markup_in_names_stays_text() -> None:
    one = photo(HOSTILE, notes=(HOSTILE,))
    named = dataclasses.replace(one.versions[2], name=HOSTILE)
    model = dataclasses.replace(
        summary(HOSTILE),
        network=HOSTILE,
        license=HOSTILE,
        device=HOSTILE,
        precision=HOSTILE,
        backend=HOSTILE,
    )
    what = Comparison(
        SCALE,
        (model,),
        (dataclasses.replace(one, versions=(*one.versions[:2], named)),),
        (Failure(HOSTILE, HOSTILE),),
    )
    plain = Outline(rendered(comparison()))
    text = rendered(what, title=HOSTILE)
    hostile = Outline(text)
    assert [tag for tag, _ in hostile.elements if tag != "p"] == [
        tag for tag, _ in plain.elements if tag != "p"
    ]
    assert hostile.all("article")[0]["data-name"] == HOSTILE
    assert hostile.all("figure")[2]["data-name"] == HOSTILE
    assert hostile.all("img")[2]["alt"] == f"{HOSTILE}, {HOSTILE}"
    assert "{{title}}" in text, "a mark in a name is no mark"


def test_title() -> None:
    assert "<title>photo.png</title>" in rendered(comparison())
    assert "<title>2 photos</title>" in rendered(comparison(photo(), photo("b.png")))
    assert "<title>A &amp; B</title>" in rendered(comparison(), title="A & B")


def test_policy_allows_only_what_is_in_the_page() -> None:
    text = rendered(comparison())
    (policy,) = [
        str(m["content"])
        for m in Outline(text).all("meta")
        if m.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for kind in ("script", "style"):
        (inside,) = re.findall(rf"<{kind}>(.*?)</{kind}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert rules[f"{kind}-src"] == f"'sha256-{digest}'"


def test_no_address_outside() -> None:
    text = rendered(comparison())
    for _, attributes in Outline(text).elements:
        for name in ("src", "href", "srcset", "action", "data"):
            assert str(attributes.get(name, "data:")).startswith("data:")
        assert "style" not in attributes, "the policy forbids it"
        assert not any(name.startswith("on") for name in attributes), "the policy forbids it"
    shell = re.sub(r"data:[a-z/]+;base64,[A-Za-z0-9+/=]+", "", text)
    assert not re.search(r"https?:|@import|url\(|fetch\(|XMLHttpRequest|WebSocket", shell)


def test_controls_have_names() -> None:
    text = rendered(comparison())
    outline = Outline(text)
    labeled = {label["for"] for label in outline.all("label")}
    assert {select["id"] for select in outline.all("select")} <= labeled
    (handle,) = [a for _, a in outline.elements if a.get("role") == "slider"]
    assert handle["tabindex"] == "0"
    assert {"aria-label", "aria-valuemin", "aria-valuemax", "aria-orientation"} <= set(handle)
    for button in re.findall(r"<button.*?</button>", text, re.DOTALL):
        assert "aria-label=" in button or re.search(r">[A-Za-z1]", button), button


def test_same_comparison_same_page() -> None:
    assert rendered(comparison()) == rendered(comparison())


def test_page_is_written_and_measured(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    size = write_page(comparison(), path)
    assert size == path.stat().st_size
    assert path.read_text(encoding="utf-8") == rendered(comparison())
    assert list(tmp_path.iterdir()) == [path]


def test_text_that_is_no_unicode_does_not_stop_it(tmp_path: Path) -> None:
    what = dataclasses.replace(comparison(), failures=(Failure("x", "bad\udcff.png: broken"),))
    write_page(what, tmp_path / "report.html")
    assert "bad?.png: broken" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_large_pages_are_warned_about() -> None:
    page.warn_about_size(42_000_000)
    with pytest.warns(RealesrWarning, match=r"5\d\.\d MiB .* quality to 90"):
        page.warn_about_size(44_000_000)
    page.warn_about_size(300_000_000, PageSettings(quality=90))
    with pytest.warns(RealesrWarning, match="smaller photos$"):
        page.warn_about_size(301_000_000, PageSettings(quality=90))


def test_unwritable(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"report\.html.*create the folder"):
        write_page(comparison(), tmp_path / "none" / "report.html")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(WriteError, match="a folder"):
        write_page(comparison(), tmp_path / "folder.html")


@pytest.mark.parametrize("quality", [0, 101])
def test_quality_has_limits(quality: int) -> None:
    with pytest.raises(ConfigError, match="quality"):
        PageSettings(quality=quality)
