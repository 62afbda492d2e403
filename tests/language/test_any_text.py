"""Labels that any text has: each of them, and in languages that write in other ways."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aligned.language import text
from aligned.language.any_text import NAMES, TOP, any_text, labelling_of, shape
from aligned.language.labels import PYTHON, Labelling, labelled_blocks
from aligned.language.model import LanguageModel
from aligned.language.text import Document

ENGLISH = """The MOST of it (as McKay's men said) was new. "Why not?" he asked, e.g. in 1984.

1. It cost $3.50 + 5 or 7/8
   and I don't understand; yes
- so-called: no!
"""
SHORT = ["The", "of", "it", "as", "men", "was", "new", "Why", "not", "he", "in", "It", "or", "and", "yes", "so", "no"]
OTHERS = {
    "German": "Für Österreich zählt „Größe“. Das ist alles.\nJa",
    "Russian": "Он пришёл. Она ушла, да!\nНЕТ",
    "Greek": "Τι είναι; Αυτό είναι.",
    "Hindi": "यह हिंदी है। वह भी।",
    "Arabic": "من أين أنت؟ من هنا، نعم.",
    "Chinese": "他说：「好。」我不去，谢谢！",
    "Japanese": "これはペンです。それは？",
}


def spans(source: str, concept: str, labelling: Labelling | None = None) -> list[str]:
    """The stretches of a text that have a label."""
    doc = Document("a", source)
    labelling = labelling or any_text([doc])
    holds = (labelling.of(doc)[:-1] >> np.uint64(labelling.names.index(concept))) & np.uint64(1) == 1
    edges = np.flatnonzero(np.diff(np.concatenate([[False], holds, [False]]).astype(int)))
    return [source[start:end] for start, end in edges.reshape(-1, 2)]


@pytest.mark.parametrize(
    ("concept", "expected"),
    [
        ("capitalised word", ["The", "Why", "It"]),
        ("upper-case word", ["MOST"]),
        ("mixed-case word", ["McKay's"]),
        ("word of one letter", ["e", "g", "I"]),
        ("short word", SHORT),
        ("long word", ["understand"]),
        ("word with an apostrophe", ["McKay's", "don't"]),
        ("letter outside ASCII", []),
        ("first word of a sentence", ["The", "Why", "It"]),
        ("last word of a sentence", ["new", "no"]),
        ("first word of a line", ["The", "It", "and", "so"]),
        ("last word of a line", ["in", "or", "yes", "no"]),
        ("first line of a document", [ENGLISH.split("\n")[0]]),
        ("end of line", ["\n\n", "\n", "\n", "\n"]),
        ("end of a paragraph", ["\n\n"]),
        ("indentation", ["   "]),
        ("mark of a list's item", ["1.", "-"]),
        ("number", ["1984", "1", "3", "50", "5", "7", "8"]),
        ("number of one digit", ["1", "3", "5", "7", "8"]),
        ("number of four digits", ["1984"]),
        ("number with a sign in it", ["3.50", "7/8"]),
        ("in brackets", ["as McKay's men said"]),
        ("in quotation marks", ["Why not?"]),
        ("full stop", [".", ".", ".", ".", ".", "."]),
        ("semicolon", [";"]),
        ("question mark", ["?"]),
        ("hyphen or dash", ["-", "-"]),
        ("currency sign", ["$"]),
        ("mathematical sign", ["+"]),
        ("slash", ["/"]),
        ("other sign", []),
        ('the word "it"', ["it", "It"]),
    ],
)  # fmt: skip
def test_english_is_labelled(concept: str, expected: list[str]) -> None:
    assert spans(ENGLISH, concept) == expected


def test_what_does_not_start_a_word_is_inside_it() -> None:
    assert spans("Ab c don't 1984", "inside a word") == ["b", "on't"]


@pytest.mark.parametrize(
    ("language", "concept", "expected"),
    [
        ("German", "capitalised word", ["Für", "Österreich", "Größe", "Das", "Ja"]),
        ("German", "letter outside ASCII", ["ü", "Ö", "ä", "öß"]),
        ("German", "in quotation marks", ["Größe"]),
        ("Russian", "first word of a sentence", ["Он", "Она", "НЕТ"]),
        ("Russian", "last word of a sentence", ["пришёл", "да"]),
        ("Russian", "upper-case word", ["НЕТ"]),
        ("Greek", "capitalised word", ["Τι", "Αυτό"]),
        ("Hindi", "first word of a sentence", ["यह", "वह"]),
        ("Hindi", "full stop", ["।", "।"]),
        ("Arabic", "first word of a sentence", ["من", "من"]),
        ("Arabic", "comma", ["،"]),
        ("Arabic", 'the word "من"', ["من", "من"]),
        ("Chinese", "first word of a sentence", ["他", "我"]),
        ("Chinese", "last word of a sentence", ["好", "谢"]),
        ("Chinese", "in quotation marks", ["好。"]),
        ("Chinese", 'the word "谢"', ["谢谢"]),
        ("Japanese", "first word of a sentence", ["こ", "そ"]),
        ("Japanese", "question mark", ["？"]),
    ],
)
def test_other_languages_are_labelled(language: str, concept: str, expected: list[str]) -> None:
    assert spans(OTHERS[language], concept) == expected


def test_the_commonest_words_are_concepts() -> None:
    docs = [Document("a", "The the THE and AND of"), Document("b", " ".join(f"w{chr(97 + i)}" for i in range(26)))]
    found = any_text(docs)
    assert found.names[: len(NAMES)] == NAMES
    assert len(found.names) == len(set(found.names)) == len(NAMES) + TOP <= 64
    assert found.names[len(NAMES) :][:4] == ('the word "the"', 'the word "and"', 'the word "of"', 'the word "wa"')
    assert spans("The other tHe", 'the word "the"', found) == ["The", "tHe"]
    assert any_text([Document("a", "42")]).names == NAMES  # of no words none


@pytest.mark.parametrize("source", ["", "\n \t\r\n", "\0\x1b\u200d", "🙂👩‍👩‍👧", "a\u0301́", "\u2028\ufeff"])
def test_odd_text_is_labelled_too(source: str) -> None:
    assert len(shape(source)) == len(source)
    assert len(any_text([]).of(Document("a", source))) == len(source) + 1


def test_a_token_has_the_labels_of_its_first_letter(model: LanguageModel) -> None:
    docs = [Document("a", OTHERS["Russian"] * 20)]  # whose letters the tokenizer cuts into bytes
    labelling = any_text(docs)
    found = labelled_blocks(docs, model.tokenizer, 32, 4, labelling)
    commas = found.tokens == model.tokenizer.convert_tokens_to_ids(",")
    labelled = (found.labels >> np.uint64(NAMES.index("comma"))) & np.uint64(1) == 1
    assert commas.sum() > 1
    assert (commas.numpy() == labelled).all()
    assert found.skipped == 0


def test_python_keeps_its_own_labels_and_other_text_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert labelling_of(text.INSTALLED) is PYTHON
    assert not capsys.readouterr().out
    for i in range(40):
        (tmp_path / f"{i}.txt").write_text(f"Text {i} of mine, all of it mine.")
    found = labelling_of(str(tmp_path))
    assert found.names[len(NAMES) :][:2] == ('the word "mine"', 'the word "of"')
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert f"and its {len(found.names) - len(NAMES)} commonest words" in said
