"""What values mean that are written on the command line."""

from __future__ import annotations

import re

import pytest

from aligned.report.written import Words, typed, written


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("[1e-3, 2_000]", [0.001, 2000]),
        ("true", True),
        ("[relu, topk]", ["relu", "topk"]),
        ("gpt2-small", "gpt2-small"),
        ("[{lr: 1e-4}]", [{"lr": 1e-4}]),
        ("@%", "@%"),
        ("010", 10),
        ("[010, 011]", [10, 11]),
        ("1:30", "1:30"),
        ("[1:30, relu, 1e-3]", ["1:30", "relu", 0.001]),
        ("no", "no"),
        ("2024-05-01", "2024-05-01"),
        ("=", "="),
        ("&a [*b]", "&a [*b]"),
        ("[" * 400, "[" * 400),
        ("~", None),
        ("-.inf", float("-inf")),
        ("my data #2", "my data #2"),
        ("[a #2, b]", "[a #2, b]"),
    ],
)
def test_values_on_the_command_line(text: str, value: object) -> None:
    assert written(text) == value
    assert type(written(text)) is type(value)


WORDS = ["my data #2.jsonl", "2024", "2024-05-01", "no", "a: b", "[1]", "'quoted'", "010", "1e-3", "a, b", "", "None"]


@pytest.mark.parametrize("words", WORDS)
def test_words_for_a_string_are_taken_whole(words: str) -> None:
    assert typed("text", Words(words), "a.jsonl") == words
    assert type(typed("text", Words(words), "a.jsonl")) is str


@pytest.mark.parametrize(
    ("words", "like", "value"),
    [
        ("-1e-4", 0.1, -0.0001),
        ("010", 3, 10),
        ("1e3", 3, 1000),
        ("3", None, 3),
        ("3,4", [0], [3, 4]),
        ("relu, top #1", ["a"], ["relu", "top #1"]),
        ("[1e-3, 2]", [0.1], [0.001, 2.0]),
        ("a #1", None, "a #1"),
        ("None", None, None),
        ("relu", ["topk"], ["relu"]),
    ],
)
def test_words_are_read_as_the_parameters_type_asks(words: str, like: object, value: object) -> None:
    found = typed("it", Words(words), like)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(("words", "like"), [("1:30", 3), ("no", True), ("[a #1, b]", ["a"]), ("2024-05-01", 3)])
def test_words_that_are_of_another_type_are_refused(words: str, like: object) -> None:
    with pytest.raises(TypeError, match=re.escape(f"it is {words!r} (str); it must be of type")):
        typed("it", Words(words), like)
