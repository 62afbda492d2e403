"""Where text comes from, and the line between training and held-out text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from aligned.language import text
from aligned.language.model import LanguageModel


def test_installed_python_has_no_duplicates_and_no_leak() -> None:
    train, held_out = (text.installed_python(s) for s in ("train", "held_out"))
    assert sum(len(d.text) for d in train) > 50_000_000
    assert sum(len(d.text) for d in held_out) > 4_000_000
    texts = [d.text for d in train + held_out]
    assert len(set(texts)) == len(texts)
    assert {d.name.split("/")[0] for d in held_out} == set(text.HELD_OUT_PACKAGES)
    assert {d.name.split("/")[0] for d in train} == set(text.TRAIN_PACKAGES)


def test_installed_python_leaves_out_tests_and_generated_files() -> None:
    for doc in text.installed_python("held_out"):
        assert "tests" not in Path(doc.name).parts
        assert "automatically generated" not in doc.text[:2000].lower()


def test_docstrings_are_read_in_the_order_of_the_file() -> None:
    source = '''"""First."""
class A:
    """Second,
    on two lines."""
    def f(self):
        """Third."""
        return "not a docstring"
def g():
    "Fourth."
async def h(): pass
'''
    assert text.docstrings(source) == "First.\n\nSecond,\non two lines.\n\nThird.\n\nFourth."
    assert text.docstrings("print 'Python 2'") == text.docstrings("x = 1") == ""


def test_installed_english_is_split_by_package_and_has_no_duplicates(monkeypatch: pytest.MonkeyPatch) -> None:
    held_out = list(text.documents(text.ENGLISH, "held_out"))
    assert sum(len(d.text) for d in held_out) > 1_500_000
    assert {d.name.split("/")[0] for d in held_out} <= set(text.HELD_OUT_PACKAGES)
    monkeypatch.setattr(text, "TRAIN_PACKAGES", ("seaborn", "mpmath", "sklearn"))  # seaborn is held out as well
    text.installed_python.cache_clear()
    try:
        train = list(text.documents(text.ENGLISH, "train"))
    finally:
        text.installed_python.cache_clear()
    assert {d.name.split("/")[0] for d in train} == {"mpmath", "sklearn"}
    assert any(d.name.endswith(".rst") for d in train)
    texts = [d.text for d in train + held_out]
    assert len(set(texts)) == len(texts)
    python = [d.text for d in text.installed_python("held_out")]
    english, code = (sum(t.count(" the ") for t in of) / sum(map(len, of)) for of in (texts, python))
    assert english > 2 * code


def test_fingerprint_tells_order_and_content() -> None:
    a, b = text.Document("a", "one"), text.Document("b", "two")
    assert text.fingerprint([a, b]) == text.fingerprint([text.Document("other", "one"), b])
    assert len({text.fingerprint(docs) for docs in ([a, b], [b, a], [a], [])}) == 4


def test_blocks_hold_the_stream_after_bos(model: LanguageModel) -> None:
    tokenizer = model.tokenizer
    docs = [text.Document(str(i), f"x{i} = {i}\n" * 5) for i in range(20)]
    blocks = text.token_blocks(docs, tokenizer, 16)
    bos, eos = text.special_tokens(tokenizer)
    assert blocks.shape[1] == 16
    assert (blocks[:, 0] == bos).all()
    stream = [t for doc in docs for t in [*tokenizer(doc.text, add_special_tokens=False)["input_ids"], eos]]
    assert blocks[:, 1:].flatten().tolist() == stream[: blocks[:, 1:].numel()]
    assert len(stream) - blocks[:, 1:].numel() < 15
    assert torch.equal(text.token_blocks(docs, tokenizer, 16, blocks=3), blocks[:3])


def test_blocks_read_no_further_than_they_need(model: LanguageModel) -> None:
    def endless():  # type: ignore[no-untyped-def]
        while True:
            yield text.Document("", "a = 1\n" * 50)

    assert text.token_blocks(endless(), model.tokenizer, 32, blocks=5).shape == (5, 32)


@pytest.mark.parametrize("kind", ["txt", "jsonl", "parquet"])
def test_local_files_of_each_kind(tmp_path: Path, kind: str) -> None:
    import pandas as pd

    texts = [f"document number {i}, " * 3 for i in range(200)]
    if kind == "txt":
        for i, t in enumerate(texts):
            (tmp_path / f"{i:03d}.txt").write_text(t)
    elif kind == "jsonl":
        (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in texts))
    else:
        pd.DataFrame({"text": texts}).to_parquet(tmp_path / "a.parquet")
    found = {split: [d.text for d in text.documents(str(tmp_path), split)] for split in ("train", "held_out")}
    assert sorted(found["train"] + found["held_out"]) == sorted(texts)
    assert len(found["train"]) > len(found["held_out"]) > 0


def test_a_book_is_cut_into_documents_at_ends_of_lines(tmp_path: Path) -> None:
    book = "".join(f"Line {i} of a book.\n" for i in range(20_000))
    place = tmp_path / "book.txt"
    place.write_text(book)
    found = [doc for split in ("train", "held_out") for doc in text.documents(str(place), split)]  # type: ignore[arg-type]
    found.sort(key=lambda doc: int(doc.name.removeprefix("book.txt:")))
    assert "".join(doc.text for doc in found) == book
    assert all(4000 < len(doc.text) < 4030 and doc.text.endswith("\n") for doc in found[:-1])
    assert len(list(text.documents(str(place), "held_out"))) > 1


def test_equal_texts_fall_on_one_side(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": f"text {i % 40}"}) for i in range(400)))
    train, held_out = ({d.text for d in text.documents(str(tmp_path), s)} for s in ("train", "held_out"))
    assert train
    assert held_out
    assert not train & held_out


def test_what_the_hub_library_says_of_a_data_set_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def refuse(*_: object, **__: object) -> None:
        raise ValueError("Config name is missing.\nPlease pick one among the available configs: ['en', 'de']")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(ConnectionError, match=r"Config name is missing\. Please pick one among .*'en', 'de'"):
        next(text.documents("allenai/c4"))
    with pytest.raises(FileNotFoundError, match="a hub data set with its owner, such as 'Salesforce/wikitext'"):
        text.documents("wikitext")


def test_a_data_set_is_read_through_the_hub_librarys_own_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": f"row {i}"}) for i in range(100)))
    real = datasets.load_dataset
    monkeypatch.setattr(
        datasets, "load_dataset",
        lambda name, **options: real("json", data_files=str(tmp_path / "a.jsonl"), **options),
    )  # fmt: skip
    found = [d.text for s in ("train", "held_out") for d in text.documents("owner/name", s)]  # type: ignore[arg-type]
    assert sorted(found) == sorted(f"row {i}" for i in range(100))


def test_errors_say_what_to_do(tmp_path: Path, model: LanguageModel) -> None:
    with pytest.raises(FileNotFoundError, match="installed-python"):
        text.documents(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="train, held_out"):
        text.documents(text.INSTALLED, "test")  # type: ignore[arg-type]
    with pytest.raises(ConnectionError, match="Without a network"):
        list(text.documents("nobody/nothing"))
    with pytest.raises(ValueError, match="holds no"):
        text.documents(str(tmp_path))
    (tmp_path / "a.jsonl").write_text('{"body": "no text field"}')
    with pytest.raises(ValueError, match="line 1"):
        text.documents(str(tmp_path))
    (tmp_path / "a.jsonl").write_text('{"text": "   "}')
    with pytest.raises(ValueError, match="has no text"):
        text.documents(str(tmp_path))
    (tmp_path / "a.jsonl").write_text('{"text": null}')
    with pytest.raises(ValueError, match="has no text"):
        text.documents(str(tmp_path))
    (tmp_path / "a.txt").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"a\.txt is not text in UTF-8"):
        list(text.documents(str(tmp_path / "a.txt")))
    with pytest.raises(ValueError, match="shorter than one block"):
        text.token_blocks([text.Document("", "x = 1")], model.tokenizer, 128)
    with pytest.raises(ValueError, match="context is 1; it is a whole number from 2"):
        text.token_blocks([text.Document("", "x = 1")], model.tokenizer, 1)
