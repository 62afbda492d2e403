"""The lecture's slides, built once with warnings as errors."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aligned.evals.intervals import Interval
from aligned.report import results, slides
from aligned.report.book import ROOT
from aligned.report.low_mode import low_mode
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


def test_a_lecture_of_45_minutes_has_notes_for_every_slide_and_time_for_questions(each: list[str]) -> None:
    notes = [re.findall(r'<aside class="notes">(\d+) minutes?[.,]', slide) for slide in each]
    assert 20 <= len(each) <= 28
    assert all(len(of) == 1 for of in notes), notes
    assert sum(int(minutes) for (minutes,) in notes) == 45 - 5
    assert "add up to 40, so that 5 are left" in each[0]


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


def test_shown_is_defined_where_the_first_verdict_stands_and_where_verdicts_are_explained(each: list[str]) -> None:
    first = next(slide for slide in each if re.search("<b>(holds|does not hold|undecided)", slide))
    (explained,) = [slide for slide in each if "<h2>How to compare fairly" in slide]
    for said in ("Low mode</em>: ", "95 % interval", "shown if all of the interval is above 0", "else open"):
        assert said in first.partition("<aside")[0]
    assert "is above 0 and the upper end is the smallest effect of interest" in explained.partition("<aside")[0]


def test_each_slide_on_dead_features_has_the_verdicts_of_its_kind_of_sae(each: list[str]) -> None:
    for kind, title in (("relu", "ReLU"), ("topk", "TopK")):
        (slide,) = [slide for slide in each if f"<h2>Are there fewer dead features? {title}" in slide]
        for model, of in slides.findings().items():
            (line,) = re.findall(rf"{model}: <b>{of['C4'].verdict}</b> \((.*?)\)", slide)
            assert line.startswith(f"{kind}, ")
            assert ("more alive: " in line and "few dead: " in line) or "not published yet" in line


def test_an_arm_within_the_smallest_effect_of_interest_is_the_same() -> None:
    effects = slides._against_standard()
    for kind in ("relu", "topk"):
        inside = {
            str(arm)
            for arm, of in effects.loc[kind].items()
            if isinstance(of, Interval) and max(abs(of.low), abs(of.high)) < 0.005
        }
        (said,) = re.findall(rf"([^:;]*) \({kind}\)", slides._same().partition("0.005:")[2])
        named = set(re.findall("`(.*?)`", said))
        assert named == inside or (said.strip(), len(inside)) in (("none", 0), ("all", len(effects.loc[kind])))


def test_the_notes_say_in_how_many_saes_there_is_a_low_mode_and_which_k_were_trained(each: list[str]) -> None:
    scores = results.of_parts("gemma-3-270m", "relu", measure="scores")
    standard = scores[scores.constraint == "none"].histogram.map(low_mode)
    (slide,) = [slide for slide in each if "<h2>What the scores are" in slide]
    assert f"in {sum(standard > 0)} of {len(standard)} (relu, gemma-3-270m)" in slide.partition("<aside")[2]
    (slide,) = [slide for slide in each if "<h2>And TopK?" in slide]
    (ks,) = re.findall(r"([\d, and]+) on gemma-3-270m", slide.partition("<aside")[2])
    trained = results.of_parts("gemma-3-270m", "topk").sparsity
    assert {int(k) for k in re.findall(r"\d+", ks)} == set(trained)


def test_the_sizes_behind_the_letters_of_c10_are_told(each: list[str]) -> None:
    (slide,) = [slide for slide in each if "<td><p>C10</p></td>" in slide]
    for letter in {outcome.name.split()[0] for outcome in slides.findings()["embedded"]["C10"].outcomes}:
        assert re.search(rf"\b{letter}, [\d,]+ features on \d+ numbers", slide)


def test_no_text_is_smaller_than_22_pixels(built: Path) -> None:
    sizes = re.findall(r"font-size: ([\d.]+)px", (built / "source" / "static" / "slides.css").read_text())
    assert len(sizes) >= 5
    assert min(map(float, sizes)) >= 22


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
