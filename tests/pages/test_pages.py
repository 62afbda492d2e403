"""Every page of the built book in a browser, as readers have it: a wide light screen, and a dark phone.

`make test-pages` runs it; it needs a Chromium on this computer.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aligned.report import book

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
ROOT = Path(__file__).parents[2]
PAGES = sorted(f"{place.parent.name}/{place.stem}" for place in ROOT.glob("notebooks/*.ipynb")) + sorted(
    f"book/{place.stem}" for place in ROOT.glob("book/*.md")
)
SCREENS = {"wide, light": (1280, "light"), "phone, light": (380, "light"), "phone, dark": (380, "dark")}

# TeX that no formula has taken up.
RAW_TEX = r"""() => {
  const texts = document.createTreeWalker(document.querySelector("article"), NodeFilter.SHOW_TEXT), found = [];
  while (texts.nextNode()) {
    const node = texts.currentNode;
    if (node.parentElement.closest("pre, code, script, style, mjx-container")) continue;
    if (/\\(text|frac|mathrm|langle|\(|\[)|\$\$/.test(node.textContent)) found.push(node.textContent.slice(0, 80));
  }
  return found;
}"""
NAMELESS = "images => images.filter(i => !i.alt || /[0-9a-f]{32}/.test(i.alt)).map(i => i.src)"
UNLINKED = "images => images.filter(i => i.closest('a')?.href !== i.src).map(i => i.src)"  # can't be enlarged
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"

pytestmark = [
    pytest.mark.pages,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this computer: install one, such as `chromium`"),
]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return book.build(ROOT / "notebooks", tmp_path_factory.mktemp("book") / "html").parent


@pytest.fixture(scope="session")
def address(built: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(built)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session", params=SCREENS)
def screen(browser: Browser, request: Any) -> Iterator[BrowserContext]:
    width, colours = SCREENS[request.param]
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=colours)
    yield context
    context.close()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_without_a_fault(screen: BrowserContext, address: str, name: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page, said, asked = screen.new_page(), [], []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{address}/{name}.html", wait_until="networkidle")
    assert said == []
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    assert page.evaluate(RAW_TEX) == []
    assert page.eval_on_selector_all("article img", NAMELESS) == []
    assert page.eval_on_selector_all("article figure img", UNLINKED) == []
    assert page.evaluate(SIDEWAYS) == 0
    of_others = {
        "exclude": [[".citation-list"], [".bd-links summary"]]
    }  # what Sphinx and the theme write by themselves
    found = Axe().run(page, context=of_others).response["violations"]
    serious = [(v["id"], v["nodes"][0]["html"][:200]) for v in found if v["impact"] in ("serious", "critical")]
    assert serious == []
    page.close()


@pytest.fixture
def from_a_file(browser: Browser, built: Path) -> Iterator[Page]:
    page = browser.new_context().new_page()
    page.goto((built / "notebooks" / "geometry.html").as_uri())
    yield page
    page.context.close()


def test_the_slider_moves_the_picture_by_keyboard_and_from_a_file(from_a_file: Page) -> None:
    slider = from_a_file.locator("article input[type=range]").first
    before, picture = int(slider.input_value()), from_a_file.locator("article svg[role=img]").first.inner_html()
    slider.focus()
    from_a_file.keyboard.press("ArrowRight")
    assert int(slider.input_value()) == before + 1
    assert from_a_file.locator("article svg[role=img]").first.inner_html() != picture


def test_features_are_sorted_filtered_and_opened_by_keyboard_and_from_a_file(from_a_file: Page, built: Path) -> None:
    page = from_a_file
    page.goto((built / "notebooks" / "features.html").as_uri())
    root = page.locator(".feature-browser").first
    scores = "rows => rows.map(row => Number(row.dataset.score))"
    rows = root.locator("details")
    shown = rows.evaluate_all(scores)
    assert shown == sorted(shown)
    assert len(shown) > 100
    root.locator("[data-of=order]").focus()
    page.keyboard.press("ArrowDown")
    assert rows.evaluate_all(scores) == shown[::-1]
    root.locator("[data-of=f1]").fill("0.5")
    kept = rows.evaluate_all("rows => rows.map(row => Number(row.dataset.f1))")
    assert 0 < len(kept) < len(shown)
    assert min(kept) >= 0.5
    assert root.locator("[role=status]").inner_text() == f"{len(kept)} features"
    rows.first.locator("summary").focus()
    page.keyboard.press("Enter")
    assert rows.first.locator("pre").first.is_visible()
