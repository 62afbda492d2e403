"""The live picture of the constraint: its markup, its numbers, and the script that repeats them."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from xml.etree import ElementTree

import pytest

from aligned.report import geometry

CASES = [*product((25.0, 90.0, 200.0, -340.0), (0, 24, 80, 114, 115, 116, 205, 290, 295, 359), (0.3, 0.8, 3.0))]


class Nesting(HTMLParser):
    """Fails where a tag is closed that is not open; `open` are those still to be closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [str(value) for key, value in attrs if key in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag


def svg(angle_d: float = 25.0, angle_v: float = 80.0, length_v: float = 0.8) -> ElementTree.Element:
    (drawn, *_) = re.findall(r"<svg.*?</svg>", geometry.live(angle_d, angle_v, length_v), re.DOTALL)
    return ElementTree.fromstring(drawn)


def part(drawn: ElementTree.Element, name: str) -> ElementTree.Element:
    (found,) = drawn.findall(f".//*[@data-part='{name}']")
    return found


def tip(drawn: ElementTree.Element, name: str) -> tuple[float, float]:
    """Where an arrow ends, in lengths of d, y upwards."""
    numbers = re.match(r"translate\((\S+) (\S+)\)", part(drawn, f"{name}-head").attrib["transform"])
    assert numbers is not None
    unit = math.hypot(*(float(drawn.find("./circle").attrib[key]) for key in ("cx", "cy")))  # type: ignore[union-attr]
    return float(numbers[1]) / unit, -float(numbers[2]) / unit


@pytest.mark.parametrize("angle_v", [80, 115, 114.9999, 25, 205])
def test_the_markup_parses_and_asks_for_nothing(angle_v: float) -> None:
    page = Nesting()
    page.feed(geometry.live(25, angle_v))
    assert page.open == []
    assert page.addresses == []
    assert "://" not in geometry.live(25, angle_v)
    drawn = svg(25, angle_v)
    assert drawn.attrib["role"] == "img"
    assert drawn[0].tag == "title"
    assert drawn[1].tag == "desc"
    assert "id" not in {key for element in drawn.iter() for key in element.attrib}  # several on a page would clash


def test_arrows_end_on_the_line_of_score_1() -> None:
    """By the geometry alone: projected is the foot of the perpendicular from v, rescaled lies on v's own ray."""
    v, d = (0.8 * math.cos(math.radians(80)), 0.8 * math.sin(math.radians(80))), math.radians(25)
    drawn = svg()
    projected, rescaled = tip(drawn, "projected"), tip(drawn, "rescaled")
    for x, y in (projected, rescaled, tip(drawn, "d")):
        assert x * math.cos(d) + y * math.sin(d) == pytest.approx(1, abs=1e-3)
    way = projected[0] - v[0], projected[1] - v[1]
    assert way[0] * math.sin(d) - way[1] * math.cos(d) == pytest.approx(0, abs=1e-3)
    assert math.atan2(rescaled[1], rescaled[0]) == pytest.approx(math.radians(80), abs=1e-3)


def test_the_words_say_the_values() -> None:
    words = {key: value["text"] for key, value in geometry.scene(25, 114, 0.8).items() if "text" in value}
    assert words["v-words"] == "v points to 114°"
    assert (
        words["projected-words"]
        == f"projected: ⟨e, d⟩ = 1.000, |e| = {math.hypot(1, 0.8 * math.cos(math.radians(1))):.2f}"
    )
    length = 1 / math.sin(math.radians(1))
    assert words["rescaled-words"] == f"rescaled: ⟨e, d⟩ = 1.000, |e| = {length:.2f}, beyond the edge of the picture"
    assert words["tied-words"] == "tied: ⟨e, d⟩ = 1.000, |e| = 1.00"


@pytest.mark.parametrize("angle_v", [115, 295, -65, 475])
def test_at_a_right_angle_the_rescaled_encoder_is_infinitely_long(angle_v: float) -> None:
    said = geometry.scene(25, angle_v, 0.8)
    assert said["rescaled-words"]["text"].endswith("infinitely long")
    assert said["projected-words"]["text"].startswith("projected: ⟨e, d⟩ = 1.000")
    line = {key: float(value) for key, value in said["rescaled"].items()}
    assert math.hypot(line["x1"], line["y1"]) > 2 * geometry.EDGE  # through the whole picture, both ways
    assert math.hypot(line["x2"], line["y2"]) > 2 * geometry.EDGE


def test_impossible_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match="the length of a vector is 0; give a finite number above 0"):
        geometry.live(25, 80, 0)
    with pytest.raises(ValueError, match="the direction of a vector is nan; give a finite number of degrees"):
        geometry.live(25, math.nan)


def test_the_script_repeats_the_drawing() -> None:
    """Every part, attribute and word that `scene` returns, over directions, poles and lengths."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node here to run the script with")
    run = f"{geometry.FORMULAS}\nconsole.log(JSON.stringify({json.dumps(CASES)}.map((c) => scene(...c))));"
    repeated = json.loads(subprocess.run([node, "-"], input=run, text=True, capture_output=True, check=True).stdout)
    for case, there in zip(CASES, repeated):
        here = geometry.scene(*case)
        assert here.keys() == there.keys()
        for name, attributes in here.items():
            assert attributes.keys() == there[name].keys()
            for key, value in attributes.items():
                other = there[name][key]
                if key == "text":
                    assert other == value, case
                else:
                    assert numbers(other) == pytest.approx(numbers(value), abs=0.02), (case, name, key)


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+\.\d+", text)]


def test_a_slider_moves_its_own_picture_in_a_browser(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here to open the page with")
    page = tmp_path / "page.html"
    page.write_text(f"""<!doctype html><meta charset="utf-8"><title>waiting</title>
<script>const before = Object.keys(window); let broken = ""; onerror = (message) => {{ broken = message; }};</script>
{geometry.live()}{geometry.live()}
<script>
const left = Object.keys(window).filter((name) => !before.includes(name));
const [slider] = document.querySelectorAll("input");
slider.value = 115;
slider.dispatchEvent(new Event("input"));
const parts = [...document.querySelectorAll(".aligned-geometry")].map((one) => Object.fromEntries(
  [...one.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, {{ ...Object.fromEntries(
    [...part.attributes].map((a) => [a.name, a.value])), text: part.textContent }}])));
const labels = [...document.querySelectorAll("label")].map((label) => label.hidden);
const said = {{ left, broken, parts, labels, spoken: slider.getAttribute("aria-valuetext") }};
document.body.replaceChildren(JSON.stringify(said));
</script>""")
    arguments = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/browser", "--dump-dom"]
    opened = subprocess.run(
        [browser, *arguments, page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    words = Words()
    words.feed(opened.stdout)
    found = json.loads(words.text[words.text.index('{"left"') :])
    assert found["broken"] == ""
    assert found["left"] == []
    assert found["labels"] == [False, False]
    assert found["spoken"] == "115 degrees"
    for shown, angle in zip(found["parts"], (115, 80)):  # the second stays
        for name, attributes in geometry.scene(25, angle, 0.8).items():
            for key, value in attributes.items():
                if key == "text":
                    assert shown[name][key] == value
                else:
                    assert numbers(shown[name][key]) == pytest.approx(numbers(value), abs=0.02)


class Words(HTMLParser):
    """The text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def handle_data(self, data: str) -> None:
        self.text += data
