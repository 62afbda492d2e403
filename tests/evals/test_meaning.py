"""Labels of a Python text whose labels are known; features that are planted are told from those that are not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from aligned.evals.meaning import concepts
from aligned.language import labels, text
from aligned.language.labels import CONCEPTS, LEXICAL, PYTHON, from_table, labelled_blocks
from aligned.language.model import LanguageModel
from aligned.language.text import Document
from aligned.sae import SAE

SOURCE = '''"""Module doc."""
import os.path as p

X = 3.5
@deco(1)
class A(Base):
    """Class é doc."""

    def f(self, q: int = 3, *, k=None) -> str:
        # comment
        for i in range(3):
            if self.q == i and not k:
                y = {"é": [g(j) for j in q]}; zé = y["a"]
                raise ValueError(f"a{i}", key=__name__)
        return _private(X)
'''


def spans(source: str, concept: str) -> list[str]:
    """The stretches of a source that are labelled with a concept."""
    words = labels.python_labels(Document("a.py", source))
    on = (words >> np.uint64(CONCEPTS.index(concept))) & np.uint64(1)
    edges = np.flatnonzero(np.diff(on.astype(int), prepend=0, append=0))
    return [source[a:b] for a, b in zip(edges[::2], edges[1::2])]


@pytest.mark.parametrize(
    ("concept", "expected"),
    [
        ("comment", ["# comment"]),
        ("docstring", ['"""Module doc."""', '"""Class é doc."""']),
        ("f-string", ['f"a{i}"']),
        ("string", ['"""Module doc."""', '"""Class é doc."""', '"é"', '"a"', 'f"a{i}"']),
        ("integer", ["1", "3", "3"]),
        ("float", ["3.5"]),
        ("decorator", ["deco(1)"]),
        ("base of a class", ["Base"]),
        ("default of a parameter", ["3", "None"]),
        ("annotation", ["int", "str"]),
        ("parameter, defined", ["self", "q", "k"]),
        ("import statement", ["import os.path as p"]),
        ("attribute", ["q"]),
        ("self", ["self", "self"]),
        ("assigned name", ["X", "i", "y", "j", "zé"]),
        ("called name", ["deco", "range", "g", "ValueError", "_private"]),
        ("keyword argument", ["key"]),
        ("key of a dict literal", ['"é"']),
        ("condition", ["self.q == i and not k"]),
        ("comprehension", ["[g(j) for j in q]"]),
        ("dunder name", ["__name__"]),
        ("private name", ["_private"]),
        ("keyword and, or, not", ["and", "not"]),
        ("comparison sign", ["=="]),
        ("blank line", ["\n", "\n"]),
        ("name of a class, defined", ["A"]),
        (
            "last line of a block",
            ['                raise ValueError(f"a{i}", key=__name__)', "        return _private(X)"],
        ),
    ],
)
def test_python_text_is_labelled(concept: str, expected: list[str]) -> None:
    assert spans(SOURCE, concept) == expected


def test_text_that_does_not_parse_has_its_lexical_labels() -> None:
    for doc in [Document("a.py", SOURCE), *text.installed_python("held_out")[:30]]:
        whole, lexical = labels.python_labels(doc), labels.lexical_labels(doc)
        for bit, name in enumerate(LEXICAL):
            assert np.array_equal(whole >> np.uint64(CONCEPTS.index(name)) & 1, lexical >> np.uint64(bit) & 1), name
    cut = SOURCE[: SOURCE.index("raise ValueError") + 20]  # ends within brackets
    assert np.array_equal(
        labels.lexical_labels(Document("a", cut))[:300], labels.lexical_labels(Document("a", SOURCE))[:300]
    )
    assert labels.lexical_labels(Document("a", "x = 'never closed\n  y = 3 # so")).any()


def test_there_are_sixty_concepts_and_more() -> None:
    assert 60 <= len(set(CONCEPTS)) == len(CONCEPTS) <= 64


def test_blocks_are_those_of_the_text_and_every_token_has_its_labels(model: LanguageModel) -> None:
    docs = [Document("a.py", SOURCE), Document("bad.py", "def def"), Document("b.py", SOURCE * 3)]
    found = labelled_blocks(docs, model.tokenizer, 32, 8)
    assert found.skipped == 1
    assert torch.equal(found.tokens, text.token_blocks([docs[0], docs[2]], model.tokenizer, 32, 8))
    assert not found.labels[model.is_special(found.tokens).numpy()].any()
    flat, words = found.tokens[:, 1:].flatten().tolist(), found.labels[:, 1:].flatten()
    comment = [t for t, w in zip(flat, words) if w >> np.uint64(CONCEPTS.index("comment")) & np.uint64(1)]
    assert model.tokenizer.decode(comment).replace(" ", "").startswith("#comment")


def test_nearly_all_installed_sources_parse(model: LanguageModel) -> None:
    docs = text.installed_python("held_out")[:60]
    found = labelled_blocks(docs, model.tokenizer, 128, 500)
    assert found.skipped <= 1
    share = [(found.labels >> np.uint64(i) & np.uint64(1)).mean() for i in range(len(CONCEPTS))]
    assert min(share) > 0


def test_labels_may_come_from_a_table(model: LanguageModel) -> None:
    table = pd.DataFrame({"document": ["a"], "start": [4], "end": [9], "concept": ["animal"]})
    found = labelled_blocks([Document("a", "the horse runs " * 20)], model.tokenizer, 16, 1, from_table(table))
    marked = found.tokens[torch.from_numpy(found.labels > 0)]
    assert model.tokenizer.decode(marked).strip() == "horse"
    with pytest.raises(ValueError, match="no column concept, end"):
        from_table(table[["document", "start"]])
    with pytest.raises(ValueError, match="65 concepts, and a labelling holds at most 64"):
        from_table(pd.concat([table.assign(concept=f"c{i}") for i in range(65)]))


@pytest.fixture
def planted() -> tuple[SAE, torch.Tensor, np.ndarray]:
    """Feature 0 is concept 1, exactly; feature 1 is concept 0 with half of its tokens missed; 2 is noise; 3 is dead."""
    generator = torch.Generator().manual_seed(0)
    n = 20_000
    holds = torch.rand(n, 3, generator=generator) < torch.tensor([0.2, 0.1, 0.3])
    x = torch.zeros(n, 4)
    x[:, 0] = holds[:, 1] * (1 + torch.rand(n, generator=generator))
    x[:, 1] = holds[:, 0] * (torch.rand(n, generator=generator) < 0.5)
    x[:, 2] = (torch.rand(n, generator=generator) < 0.1).float()
    sae = SAE(4, 4, "relu", 0.0, "none")
    with torch.no_grad():
        sae.W_dec.copy_(torch.eye(4)), sae.free.copy_(torch.eye(4))
    return sae, x, (holds.numpy() * np.array([1, 2, 4])).sum(1).astype(np.uint64)


def test_a_planted_concept_has_an_f1_of_one_and_noise_that_of_chance(
    planted: tuple[SAE, torch.Tensor, np.ndarray],
) -> None:
    table = concepts(*planted, ("a", "b", "c"))
    assert list(table.concept[:2]) == ["b", "a"]
    assert table.f1[0] == 1
    assert table.f1[1] == pytest.approx(2 / 3, abs=0.02)
    assert table.precision[1] == 1
    assert table.recall[1] == pytest.approx(0.5, abs=0.02)
    assert table.f1[2] == pytest.approx(table.chance[2], abs=0.03)
    assert table.chance[0] < 0.5
    assert pd.isna(table.concept[3])
    assert table.f1[3] == 0
    assert table.density[0] == pytest.approx(0.1, abs=0.01)


def test_threshold_and_concept_are_the_best_of_all() -> None:
    generator = torch.Generator().manual_seed(1)
    sae = SAE(8, 20, "topk", 3, "none")
    x = torch.randn(600, 8, generator=generator)
    words = torch.randint(1, 2**5, (600,), generator=generator).numpy().astype(np.uint64)
    table = concepts(sae, x, words, tuple("abcde"))
    f, holds = sae.encode(x), torch.from_numpy((words[:, None] >> np.arange(5, dtype=np.uint64)) & np.uint64(1)).bool()
    for j in range(20):
        best = 0.0
        for threshold in f[:300, j][f[:300, j] > 0].unique():
            said = (f[:300, j] >= threshold)[:, None]
            f1 = 2 * (said & holds[:300]).sum(0) / (said.sum() + holds[:300].sum(0))
            best = max(best, f1.max().item())
        assert table.f1_chosen[j] == pytest.approx(best, abs=1e-6)


def test_what_does_not_fit_is_refused(planted: tuple[SAE, torch.Tensor, np.ndarray]) -> None:
    sae, x, words = planted
    with pytest.raises(ValueError, match="width 3, and the SAE reads 4"):
        concepts(sae, x[:, :3], words, ("a", "b", "c"))
    with pytest.raises(ValueError, match="labels for 10 tokens, and activations of 20000"):
        concepts(sae, x, words[:10], ("a", "b", "c"))
    with pytest.raises(ValueError, match="no token of one half of the text is labelled a, b: take more text"):
        concepts(sae, x, np.zeros_like(words), ("a", "b"))
    assert PYTHON.names == CONCEPTS


def test_chance_is_the_detection_of_the_labels_where_they_were_moved_to() -> None:
    sae = SAE(2, 1, "relu", 0.0, "none")
    with torch.no_grad():
        for rows in (sae.free, sae.W_dec):
            rows[:] = torch.tensor([[1.0, 0.0]])
    words = np.zeros(4000, np.uint64)
    words[:2000] = 1  # all in the first half, but for one
    words[-1] = 1
    table = concepts(sae.requires_grad_(False), torch.ones(4000, 2), words, ("c",), seed=0)
    shift = 2000 + np.random.default_rng(0).integers(-500, 501)
    moved = int(np.roll(words, shift)[2000:].sum())
    assert moved > 1000
    assert table.chance[0] == pytest.approx(2 * moved / (moved + 2000))  # of a feature that is active everywhere
    assert table.f1[0] == pytest.approx(2 / 2001)


def test_the_threshold_of_one_half_is_scored_on_the_other() -> None:
    """Worked out by hand: over 1.5 the concept holds in the first half; in the second three tokens are over it, and one
    of the concept's two."""
    sae = SAE(1, 1, "relu", 0.0, "none").requires_grad_(False)
    sae.free.fill_(1), sae.W_dec.fill_(1)
    x = torch.tensor([3, 2, 1, 0, 3, 1.4, 1.6, 1.7])[:, None]
    (row,) = concepts(sae, x, np.array([1, 1, 0, 0] * 2, np.uint64), ("c",)).itertuples()
    assert (row.concept, row.threshold, row.f1_chosen) == ("c", 1.5, 1)
    assert (row.f1, row.precision, row.recall) == pytest.approx((2 / 5, 1 / 3, 1 / 2))
    assert row.density == 7 / 8


def test_a_concept_that_one_half_does_not_have_is_left_out(planted: tuple[SAE, torch.Tensor, np.ndarray]) -> None:
    sae, x, words = planted
    in_first_half = words | (np.arange(len(words)) < 100).astype(np.uint64) << np.uint64(3)
    with pytest.warns(UserWarning, match="labelled so: d, e"):
        found = concepts(sae, x, in_first_half, ("a", "b", "c", "d", "e"))
    pd.testing.assert_frame_equal(found, concepts(sae, x, words, ("a", "b", "c")))


def test_labels_that_the_names_do_not_cover_are_refused() -> None:
    sae, words = SAE(16, 64, "topk", 4).requires_grad_(False), np.full(100, 5, np.uint64)
    with pytest.raises(ValueError, match="the labels know 3 concepts, and 2 are named"):
        concepts(sae, torch.randn(100, 16), words, ("a", "b"))
    with pytest.raises(TypeError, match="a NumPy array of uint64"):
        concepts(sae, torch.randn(100, 16), words.astype(np.int64), ("a", "b", "c"))
    with pytest.raises(ValueError, match="not finite"):
        concepts(sae, torch.full((100, 16), torch.nan), np.ones(100, np.uint64), ("a",))
