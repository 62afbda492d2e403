"""Windows for SCR: each in one document, documents on one side, all four combinations equally often."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from aligned.evals.attributes import PAIRS, SHARES, _sides, more, never, of_any_text, of_packages, often, pairs
from aligned.evals.spurious import train_probes
from aligned.language import text
from aligned.language.any_text import any_text
from aligned.language.labels import Windows, from_table, labelled_windows
from aligned.language.model import LanguageModel
from aligned.language.text import Document


@pytest.fixture(scope="module")
def windows(model: LanguageModel) -> Windows:
    return labelled_windows(text.installed_python("held_out")[:90], model.tokenizer, 64)


def test_a_window_lies_within_its_document(model: LanguageModel, windows: Windows) -> None:
    by_name = {doc.name: doc.text for doc in text.installed_python("held_out")[:90]}
    for row in range(0, len(windows.tokens), 50):
        assert windows.tokens[row, 0] == model.tokenizer.bos_token_id
        assert model.tokenizer.decode(windows.tokens[row, 1:]) in by_name[windows.documents[row]]
    assert not windows.labels[:, 0].any()


def test_attributes_are_read_off_the_labels(windows: Windows) -> None:
    share = windows.share("docstring")
    here, absent = often("docstring", 0.25).of(windows)
    assert (here == (share >= 0.25)).all()
    assert (absent == (share == 0)).all()
    none, some = never("docstring", 0.25).of(windows)
    assert (none == (share == 0)).all()
    assert (some == here).all()
    inside, outside = of_packages("IPython").of(windows)
    assert (inside == [name.startswith("IPython/") for name in windows.documents]).all()
    assert (inside ^ outside).all()
    with pytest.raises(ValueError, match="no concept 'poem'; there are comment, "):
        often("poem", 0.1).of(windows)


def test_documents_stay_on_one_side(windows: Windows) -> None:
    side = _sides(windows.documents, 0)
    table = pd.DataFrame({"document": windows.documents, "side": side})
    assert table.groupby("document").side.nunique().max() == 1
    shares = table.side.value_counts(normalize=True)
    assert shares.to_dict() == pytest.approx(SHARES, abs=0.1)
    assert (side != _sides(windows.documents, 1)).any()


def test_pairs_are_balanced_confounded_and_apart(model: LanguageModel, windows: Windows) -> None:
    pair = (often("comment", 0.06), often("self", 0.01))
    (found,) = pairs(model, 1, windows, [pair], train=80, validation=40, test=40)
    assert found.name == "comment / self"
    for part, size in ((found.train, 80), (found.test, 40)):
        quadrants = pd.crosstab(part.a[part.balanced].numpy(), part.b[part.balanced].numpy())
        assert (quadrants == size / 4).all(axis=None)
        assert part.coinciding.sum() == size
        assert part.x.shape == (size * 3 / 2, 64, model.d_in)
        assert (part.keep.sum(1) == 63).all()
    (again,) = pairs(model, 1, windows, [pair], train=80, validation=40, test=40)
    assert torch.equal(found.train.x, again.train.x)
    (on_test,) = pairs(model, 1, windows, [pair], train=80, validation=40, test=40, epoch_on_test=True)
    expected = train_probes(found.train, found.test)
    for probe in ("a", "b", "biased"):
        assert torch.equal(getattr(on_test.probes, probe).weight, getattr(expected, probe).weight)


def test_activations_and_labels_belong_together(model: LanguageModel, windows: Windows) -> None:
    few = replace(windows, tokens=windows.tokens[::4], labels=windows.labels[::4], documents=windows.documents[::4])
    pair = (often("comment", 0.06), often("self", 0.01))
    (found,) = pairs(model, 1, few, [pair], train=40, validation=8, test=8)
    last = torch.cat([model.residual(part, 1)[:, -1] for part in few.tokens.split(50)])
    nearest = torch.cdist(found.train.x[:, -1], last, compute_mode="donot_use_mm_for_euclid_dist")
    assert nearest.amin(1).max() < 1e-3
    rows = nearest.argmin(1)
    for attribute, holds in zip(pair, (found.train.a, found.train.b)):
        assert (attribute.of(few)[0][rows] == holds.numpy()).all()


def test_the_embedded_pairs_have_their_full_size(model: LanguageModel) -> None:
    windows = labelled_windows(text.documents(text.INSTALLED, "held_out"), model.tokenizer, 128)
    assert len(PAIRS) >= 4
    side = _sides(windows.documents, 0)
    for a, b in PAIRS:
        (a_yes, a_no), (b_yes, b_no) = a.of(windows), b.of(windows)
        for part, size in (("train", 4000), ("validation", 500), ("test", 1000)):
            for one in (a_yes, a_no):
                for other in (b_yes, b_no):
                    assert (one & other & (side == part)).sum() >= size / 4, (a.name, b.name, part)


@pytest.fixture(scope="module")
def signs(model: LanguageModel) -> Windows:
    """Windows of a text of Chinese characters, in which no word has capitals and no sign is a comma."""
    rng = np.random.default_rng(0)
    characters = [chr(0x4E00 + i) for i in range(40)]
    docs = [Document(f"d{i}", "".join(rng.choice(characters, 200, p=rng.dirichlet(np.ones(40))))) for i in range(80)]
    return labelled_windows(docs, model.tokenizer, 32, any_text(docs))


def test_any_text_has_pairs_of_its_own(model: LanguageModel, signs: Windows) -> None:
    found = list(pairs(model, 1, signs, train=80, validation=16, test=16))
    names = [name for pair in found for name in pair.name.split(" / ")]
    assert len(names) == len(set(names)) > 2
    assert {name.split()[0] for name in names} == {"the"}  # words alone: the signs are not there
    for pair in found:
        for texts in (pair.train, pair.test):
            assert pd.crosstab(texts.a.numpy(), texts.b.numpy()).shape == (2, 2)


def test_pairs_that_the_text_has_enough_of_come_first(signs: Windows) -> None:
    side, sizes = _sides(signs.documents, 0), {"train": 80, "validation": 16, "test": 16}

    def least(a: str, b: str) -> float:
        masks = [more(concept).of(signs) for concept in (a, b)]
        return min(
            1.0,
            *((x & y & (side == part)).sum() / n * 4 for x in masks[0] for y in masks[1] for part, n in sizes.items()),
        )

    found = [(a.name, b.name) for a, b in of_any_text(signs, side, sizes)]
    words = signs.names[-20:][:6]
    assert least(*found[0]) == max(least(a, b) for a in words for b in words if a != b)
    assert [least(*pair) for pair in found] == sorted((least(*pair) for pair in found), reverse=True)


def test_more_is_a_third_against_a_third(signs: Windows) -> None:
    here, absent = more(signs.names[-20]).of(signs)
    share = signs.share(signs.names[-20])
    assert share[here].min() > share[absent].max()
    assert not (here & absent).any()
    assert 0.2 < here.mean() < 0.45
    assert not more("number").of(signs)[0].any()  # it is nowhere
    assert more("number").of(signs)[1].all()


def test_a_text_without_such_windows_is_refused(model: LanguageModel) -> None:
    docs = [Document(f"d{i}", "one and the same " * 20) for i in range(4)]
    with pytest.raises(ValueError, match="windows of 4 documents have no such two: take more text"):
        list(pairs(model, 1, labelled_windows(docs, model.tokenizer, 16, any_text(docs))))


def test_no_more_windows_are_read_than_asked_for(model: LanguageModel) -> None:
    def endless():  # type: ignore[no-untyped-def]
        while True:
            yield Document("", "a = 1\n" * 50)

    assert 10 <= len(labelled_windows(endless(), model.tokenizer, 16, most=10).documents) < 30


def test_labels_of_a_table_make_pairs_too(model: LanguageModel) -> None:
    docs, rows = [], []
    for i in range(160):
        animal, red = i % 2, i // 2 % 2
        docs.append(
            Document(f"d{i}", f"{'horse' if animal else 'stone'} {'red' if red else 'blue'} here and there, on")
        )
        rows += [(f"d{i}", 0, 5, "animal")] * animal + [(f"d{i}", 6, 9, "red")] * red
    table = pd.DataFrame(rows, columns=["document", "start", "end", "concept"])
    windows = labelled_windows(docs, model.tokenizer, 8, from_table(table))
    first = np.unique(windows.documents, return_index=True)[1]  # the windows that the spans are in
    windows = replace(
        windows,
        tokens=windows.tokens[first],
        labels=windows.labels[first],
        documents=tuple(windows.documents[i] for i in first),
    )
    (found,) = pairs(model, 1, windows, [(often("animal", 0.01), often("red", 0.01))], 16, 4, 4)
    assert found.train.balanced.sum() == 16


def test_a_combination_that_nobody_has_is_named(model: LanguageModel, windows: Windows) -> None:
    pair = (often("comment", 0.06), never("comment", 0.06))
    with pytest.raises(ValueError, match=r"comment / no comment, train: .* 0 with comment and no comment, "):
        list(pairs(model, 1, windows, [pair]))
    with pytest.raises(ValueError, match="no document that can be labelled has 9999 tokens"):
        labelled_windows([Document("a.py", "x = 1")], model.tokenizer, 10_000)
