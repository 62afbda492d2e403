"""The lecture's slides, built once with warnings as errors."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aligned.report import slides
from aligned.report.book import ROOT
from aligned.report.scorecard import CLAIMS

pytestmark = pytest.mark.all
SHOWN = 1120, 440  # pixels that a figure has on a slide of 1200 x 720


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("slides")
    shutil.copytree(ROOT / "book" / "slides", place / "source")
    build = ["sphinx.cmd.build", "-q", "-W", "-b", "revealjs", str(place / "source"), str(place / "html")]
    subprocess.run([sys.executable, "-m", *build], check=True)
    return place


@pytest.fixture(scope="module")
def each(built: Path) -> list[str]:
    """The HTML of each slide."""
    return re.findall(
        r"<section\s*>(?:(?!<section).)*?</section>", (built / "html" / "index.html").read_text(), re.DOTALL
    )


def test_a_lecture_has_notes_for_every_slide_and_lasts_45_minutes(each: list[str]) -> None:
    notes = [re.findall(r'<aside class="notes">(\d+) minutes?[.,]', slide) for slide in each]
    assert 20 <= len(each) <= 28
    assert all(len(of) == 1 for of in notes), notes
    assert sum(int(minutes) for (minutes,) in notes) == 45


def test_every_question_has_its_answer_in_the_notes(each: list[str]) -> None:
    asking = [slide for slide in each if "Question:" in slide]
    assert len(asking) >= 4
    assert all("Answer:" in slide for slide in asking)


def test_the_speakers_view_opens(built: Path) -> None:
    said = (built / "html" / "index.html").read_text()
    (source,) = re.findall(r'src="([^"]*/notes\.js)[^"]*"', said)
    assert (built / "html" / source).is_file()


def test_every_claim_stands_with_its_verdicts_and_nothing_is_left_to_fill_in(each: list[str]) -> None:
    tables = [slide for slide in each if "The twelve claims" in slide]
    for name, claim in CLAIMS.items():
        (row,) = re.findall(rf"<tr[^>]*><td><p>{name}</p></td>.*?</tr>", "".join(tables), re.DOTALL)
        assert claim.statement.replace("'", "’") in row
        for of in slides.findings().values():
            assert f"<b>{of[name].verdict}</b>{of[name].short.removeprefix(of[name].verdict)}" in row
    assert "{{" not in "".join(each)


def test_a_figures_letters_can_be_read_from_far(built: Path) -> None:
    """The smallest ones are 15 pixels high, of 720."""
    for figure in slides.FIGURES:
        svg = (built / "source" / f"{figure.__name__}.svg").read_text()
        width, height = (
            float(size) for size in re.findall(r'<svg[^>]* width="([\d.]+)pt" height="([\d.]+)pt"', svg)[0]
        )
        scale = min(SHOWN[0] / width, SHOWN[1] / height)
        sizes = [float(size) for size in re.findall(r"font(?:-size)?: [^;\"]*?([\d.]+)px", svg)]
        assert len(sizes) >= 10
        assert min(sizes) * scale >= 15, figure.__name__
        assert f'src="_images/{figure.__name__}.svg"' in (built / "html" / "index.html").read_text()
