"""Feature pages: the strongest contexts, in order, as text and as HTML."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from aligned.evals.contexts import LINE, Context, Page, pages
from aligned.sae import SAE


@pytest.fixture
def planted() -> tuple[SAE, torch.Tensor, torch.Tensor, torch.Tensor, list[str]]:
    """Feature 0 fires on token 7 alone, the more the later the block; feature 1 never."""
    sae = SAE(4, 3, "relu", 0.0, "none")
    with torch.no_grad():
        sae.free.zero_(), sae.W_dec.zero_()
        sae.free[0, 0], sae.W_dec[0, 0], sae.free[2, 1] = 1.0, 0.5, 1.0
    tokens = torch.randint(1, 7, (5, 64), generator=torch.Generator().manual_seed(0))
    tokens[:, 0] = 0
    tokens[:, [20, 24, 60]] = 7
    x = torch.zeros(5, 64, 4)
    x[..., 0] = (tokens == 7) * torch.arange(1, 6)[:, None]
    x[:, 0] = 100  # BOS
    return sae, tokens, x, tokens != 0, ["<bos>", "a", " b", "\n", "<i>", " d", " e", " HIT"]


def test_contexts_are_the_strongest_and_do_not_overlap(planted) -> None:  # type: ignore[no-untyped-def]
    sae, tokens, x, keep, words = planted
    (page,) = pages(sae, [0], tokens, x, keep, words, contexts=4)
    assert [max(c.values) for c in page.contexts] == [5, 5, 4, 4]
    assert all(" HIT" in c.tokens and len(c.tokens) <= 2 * LINE for c in page.contexts)
    assert [c.tokens[c.at] for c in page.contexts] == [" HIT"] * 4
    assert [c.values[c.at] for c in page.contexts] == [5, 5, 4, 4]
    assert page.score == pytest.approx(0.5)
    assert page.density == pytest.approx(15 / (5 * 63))


def test_text_and_html_show_what_fires(planted) -> None:  # type: ignore[no-untyped-def]
    sae, tokens, x, keep, words = planted
    (page,) = pages(sae, [0], tokens, x, keep, words, contexts=1)
    page = replace(page, concept="loop body", f1=0.5)
    assert page.text().startswith("feature 0: alignment score 0.500, active on 4.762%; loop body, F1 0.50\n")
    assert "[[ HIT]]" in page.text()
    assert len(page.text().splitlines()) == 2
    shown = page.html()
    assert "<span title='5' style='background:rgba(230,140,30,0.38)'> HIT</span>" in shown
    assert "<i>" not in shown
    assert "&lt;i&gt;" in shown


def test_contexts_are_whole_lines(planted) -> None:  # type: ignore[no-untyped-def]
    sae, _, _, _, words = planted
    tokens = torch.tensor([[0, 1, 3, 5, 7, 6, 3, 1, 1, 3, 2, *[1] * 9]])
    x = torch.zeros(1, 20, 4)
    x[0, 4, 0] = 2
    (page,) = pages(sae, [0], tokens, x, tokens != 0, words)
    (context,) = page.contexts
    assert context.tokens == ("\n", " d", " HIT", " e", "\n", "a", "a", "\n")  # the last line is too long
    assert page.text().splitlines()[1] == "   d[[ HIT]] e\\naa"


def test_a_line_that_is_not_whole_ends_in_dots_and_an_active_end_of_line_can_be_seen(planted) -> None:  # type: ignore[no-untyped-def]
    sae, _, _, _, words = planted
    tokens = torch.full((1, 200), 5)
    tokens[0, [0, 100]] = torch.tensor([0, 7])
    x = torch.zeros(1, 200, 4)
    x[0, 100, 0] = 2
    (page,) = pages(sae, [0], tokens, x, tokens != 0, words)
    shown = page.text().splitlines()[1]
    assert shown.startswith("  … d d")
    assert shown.endswith(" d d…")
    assert len(page.contexts[0].tokens) == 2 * LINE
    ended = Page(0, 1.0, 0.1, (Context(("\n    ", "if", ":", "\n        "), (0.0, 0.0, 0.0, 1.5), 3),))
    assert ended.text().splitlines()[1] == "      if:[[⏎]]"
    assert "⏎</span><sub style='opacity:.7'>1.5</sub>" in ended.html()


def test_a_concept_that_chance_could_give_is_none(planted) -> None:  # type: ignore[no-untyped-def]
    sae, tokens, x, keep, words = planted
    (page,) = pages(sae, [0], tokens, x, keep, words, contexts=1)
    assert replace(page, concept="comma", f1=0.19).title.endswith("; no concept, F1 0.19")
    assert replace(page, concept="comma", f1=0.2).title.endswith("; comma, F1 0.20")
    assert page.title.endswith("active on 4.762%")


def test_a_page_from_its_record_is_the_same_page(planted) -> None:  # type: ignore[no-untyped-def]
    sae, tokens, x, keep, words = planted
    for page in pages(sae, [0, 1], tokens, x, keep, words, contexts=4):
        page = replace(page, concept="loop body", f1=0.5)
        again = Page.of_record(json.loads(json.dumps(page.record)))
        assert again == page
        assert again.html() == page.html()


def test_a_record_has_activations_to_three_digits(planted) -> None:  # type: ignore[no-untyped-def]
    sae, tokens, x, keep, words = planted
    (page,) = pages(sae, [0], tokens, x * 1.23456, keep, words, contexts=1)
    (context,) = page.record["contexts"]
    assert context["values"][context["at"]] == 6.17
    assert set(context["values"]) == {0, 6.17}


def test_a_feature_that_never_fires_has_no_context(planted) -> None:  # type: ignore[no-untyped-def]
    sae, tokens, x, keep, words = planted
    (page,) = pages(sae, [1], tokens, x, keep, words)
    assert page.contexts == ()
    assert page.density == 0
    assert "feature 1" in page.html()


def test_what_is_not_there_is_refused(planted) -> None:  # type: ignore[no-untyped-def]
    sae, tokens, x, keep, words = planted
    with pytest.raises(ValueError, match="no feature 3; the SAE has 0 to 2"):
        pages(sae, [3], tokens, x, keep, words)
    with pytest.raises(ValueError, match="not of the SAE's width, 4"):
        pages(sae, [0], tokens, x[..., :3], keep, words)
