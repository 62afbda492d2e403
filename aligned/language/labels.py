"""What every token of Python text is: labels from `tokenize` and `ast`, with no judge and no network.

A labelling gives each character of a document a 64-bit word, in which bit i says whether concept i holds there. A token
has the labels of its first character that is not blank (of its first one, if all are).
"""

from __future__ import annotations

import ast
import io
import keyword
import re
import tokenize
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int, UInt64
from torch import Tensor

from aligned.language.text import Document, special_tokens

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

Labels = UInt64[np.ndarray, " n"]


@dataclass(frozen=True)
class Labelling:
    """Names of at most 64 concepts, and what gives each character of a document its word.

    Attributes:
        names: bit by bit.
        of: from a document to its characters' labels.
        written: the labelling of what a model writes, which need not be whole; None where this one will do.
    """

    names: tuple[str, ...]
    of: Callable[[Document], Labels]
    written: Labelling | None = None

    def __post_init__(self) -> None:
        if len(self.names) > 64:
            raise ValueError(f"there are {len(self.names)} concepts, and a labelling holds at most 64")


@dataclass(frozen=True)
class Labelled:
    """Token blocks with their labels.

    Attributes:
        tokens: `[n, context]`, BOS first.
        labels: `[n, context]`, the labels of each token; 0 at special tokens.
        names: of the concepts, bit by bit.
        skipped: documents that could not be labelled (they do not parse), which are left out.
    """

    tokens: Int[Tensor, "n context"]
    labels: UInt64[np.ndarray, "n context"]
    names: tuple[str, ...]
    skipped: int


@dataclass(frozen=True)
class Windows(Labelled):
    """Blocks that lie within one document each, and that document's name."""

    documents: tuple[str, ...]

    def share(self, concept: str) -> Float[np.ndarray, " n"]:
        """The share of each window's tokens, BOS left out, that a concept holds of.

        Raises:
            ValueError: no such concept.
        """
        if concept not in self.names:
            raise ValueError(f"there is no concept {concept!r}; there are {', '.join(self.names)}")
        bit = np.uint64(self.names.index(concept))
        return ((self.labels[:, 1:] >> bit) & np.uint64(1)).mean(1)


def labelled_blocks(
    docs: Iterable[Document],
    tokenizer: PreTrainedTokenizerBase,
    context: int,
    blocks: int,
    labelling: Labelling | None = None,
) -> Labelled:
    """Pack documents into blocks as `aligned.language.text.token_blocks` does, with the labels of every token.

    Args:
        docs: read no further than needed.
        tokenizer: a fast one, which says where its tokens stand in the text.
        context: tokens in a block, BOS included.
        blocks: how many; fewer, where the text ends.
        labelling: `PYTHON` by default.

    Raises:
        ValueError: the text is shorter than one block.
    """
    labelling = labelling or PYTHON
    bos, eos = special_tokens(tokenizer)
    need, have, skipped = blocks * (context - 1), 0, 0
    ids: list[np.ndarray] = []
    marks: list[np.ndarray] = []
    for _, found in _labelled(docs, tokenizer, labelling):
        if found is None:
            skipped += 1
            continue
        ids.append(np.append(found[0], eos))
        marks.append(np.append(found[1], np.uint64(0)))
        have += len(ids[-1])
        if have >= need:
            break
    n = min(blocks, have // (context - 1))
    if n == 0:
        raise ValueError(f"the text has {have} tokens that can be labelled: less than one block of context {context}")
    stream = np.concatenate(ids)[: n * (context - 1)].reshape(n, -1)
    labels = np.concatenate(marks)[: n * (context - 1)].reshape(n, -1)
    return Labelled(*_with_bos(stream, labels, bos), labelling.names, skipped)


def labelled_windows(
    docs: Iterable[Document],
    tokenizer: PreTrainedTokenizerBase,
    context: int = 128,
    labelling: Labelling | None = None,
    most: int = 40_000,
) -> Windows:
    """Cut every document into windows of `context` tokens, BOS included; what does not fill its last one is dropped.

    Args:
        docs, tokenizer, context, labelling: as for `labelled_blocks`.
        most: windows, at which no further document is read: a text of the hub may have no end.

    Raises:
        ValueError: no document is as long as one window.
    """
    labelling = labelling or PYTHON
    bos, _ = special_tokens(tokenizer)
    skipped = 0
    ids: list[np.ndarray] = []
    marks: list[np.ndarray] = []
    documents: list[str] = []
    for doc, found in _labelled(docs, tokenizer, labelling):
        if found is None:
            skipped += 1
            continue
        n = len(found[0]) // (context - 1)
        ids.append(found[0][: n * (context - 1)].reshape(n, context - 1))
        marks.append(found[1][: n * (context - 1)].reshape(n, context - 1))
        documents += [doc.name] * n
        if len(documents) >= most:
            break
    if not documents:
        raise ValueError(f"no document that can be labelled has {context - 1} tokens, as a window of context {context}")
    tokens, labels = _with_bos(np.concatenate(ids), np.concatenate(marks), bos)
    return Windows(tokens, labels, labelling.names, skipped, tuple(documents))


def _labelled(
    docs: Iterable[Document], tokenizer: PreTrainedTokenizerBase, labelling: Labelling
) -> Iterator[tuple[Document, tuple[np.ndarray, Labels] | None]]:
    """Each document with its token ids and their labels, or with None where it cannot be labelled."""
    for doc in docs:
        try:
            by_character = labelling.of(doc)
        except (SyntaxError, ValueError, RecursionError):
            yield doc, None
            continue
        encoded = tokenizer(doc.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        starts = _first_characters(doc.text, encoded["offset_mapping"])
        yield doc, (np.array(encoded["input_ids"], dtype=np.int64), by_character[starts])


def _with_bos(
    ids: Int[np.ndarray, "n rest"], labels: UInt64[np.ndarray, "n rest"], bos: int
) -> tuple[Int[Tensor, "n context"], UInt64[np.ndarray, "n context"]]:
    n = len(ids)
    tokens = np.concatenate([np.full((n, 1), bos), ids], axis=1)
    return torch.from_numpy(tokens).long(), np.concatenate([np.zeros((n, 1), np.uint64), labels], axis=1)


def from_table(spans: pd.DataFrame) -> Labelling:
    """A labelling from a table of spans, for text that has no grammar to be asked.

    Args:
        spans: rows of `document` (its name), `start` and `end` (characters), and `concept`.

    Raises:
        ValueError: a column that is missing, or more than 64 concepts.
    """
    if missing := {"document", "start", "end", "concept"} - set(spans.columns):
        raise ValueError(f"the table of spans has no column {', '.join(sorted(missing))}")
    names = tuple(sorted(spans.concept.unique()))
    by_document = dict(tuple(spans.groupby("document")))

    def of(doc: Document) -> Labels:
        labels = Marks(doc.text, names)
        for row in by_document[doc.name].itertuples() if doc.name in by_document else ():
            labels.mark(row.concept, row.start, row.end)
        return labels.labels

    return Labelling(names, of)


def _first_characters(text: str, offsets: list[tuple[int, int]]) -> Int[np.ndarray, " n"]:
    """Where each token's first character that is not blank stands."""
    blank = np.array([c.isspace() for c in text] + [False])
    following = np.where(blank, len(text), np.arange(len(text) + 1))
    following = np.minimum.accumulate(following[::-1])[::-1]  # the next character from here on that is not blank
    start, end = np.array(offsets, dtype=int).reshape(-1, 2).T
    return np.where(following[start] < end, following[start], start)


class Marks:
    """The characters' labels of one document."""

    def __init__(self, text: str, names: tuple[str, ...]) -> None:
        self.labels = np.zeros(len(text) + 1, dtype=np.uint64)
        self.bits = {name: np.uint64(1 << i) for i, name in enumerate(names)}

    def mark(self, concept: str, start: int, end: int) -> None:
        self.labels[start:end] |= self.bits[concept]


# --- Python ---------------------------------------------------------------------------------------------------------

_KEYWORDS = {
    "keyword def": ("def",),
    "keyword class": ("class",),
    "keyword return": ("return",),
    "keyword if, elif, else": ("if", "elif", "else"),
    "keyword for, while": ("for", "while"),
    "keyword import, from": ("import", "from"),
    "keyword try, except, finally": ("try", "except", "finally"),
    "keyword raise": ("raise",),
    "keyword with, as": ("with", "as"),
    "keyword and, or, not": ("and", "or", "not"),
    "keyword in, is": ("in", "is"),
    "None": ("None",),
    "True, False": ("True", "False"),
    "keyword pass, break, continue": ("pass", "break", "continue"),
}
_OPERATORS = {
    "opening bracket": tuple("([{"),
    "closing bracket": tuple(")]}"),
    "comma": (",",),
    "colon": (":",),
    "dot": (".",),
    "assignment sign": ("=", "+=", "-=", "*=", "/=", "//=", "%=", "@=", "&=", "|=", "^=", ">>=", "<<=", "**=", ":="),
    "comparison sign": ("==", "!=", "<", ">", "<=", ">="),
    "arithmetic sign": ("+", "-", "*", "/", "//", "%", "**", "@"),
}
_NAMES = (
    "comment", "blank line", "indentation", "end of line", "integer", "float",
    "string", "docstring", "f-string",
    "name of a function, defined", "name of a class, defined", "parameter, defined", "default of a parameter",
    "annotation", "decorator", "base of a class", "import statement", "imported name",
    "attribute", "self", "called name", "keyword argument", "subscript", "assigned name", "read name",
    "dunder name", "private name", "upper-case name",
    "condition", "loop body", "function body", "class body", "nested function body", "try body", "except body",
    "comprehension", "key of a dict literal", "raise statement", "returned value",
    "deep in brackets", "deeply indented", "last line of a block",
)  # fmt: skip
CONCEPTS = (*_NAMES, *_KEYWORDS, *_OPERATORS)
LEXICAL = (
    *_KEYWORDS, *_OPERATORS, "comment", "blank line", "indentation", "end of line", "integer", "float", "string",
    "f-string", "self", "dunder name", "private name", "upper-case name", "deep in brackets", "deeply indented",
)  # fmt: skip
_BY_KEYWORD = {word: concept for concept, words in _KEYWORDS.items() for word in words}
_BY_OPERATOR = {sign: concept for concept, signs in _OPERATORS.items() for sign in signs}
_DEEP_BRACKETS, _DEEP_INDENT = 3, 12  # brackets open at once; characters


def python_labels(doc: Document) -> Labels:
    """The labels of a Python source.

    Raises:
        SyntaxError, ValueError, RecursionError: it does not parse.
    """
    found = _Python(doc.text)
    found.read()
    found.visit(ast.parse(doc.text))
    return found.labels


def lexical_labels(doc: Document) -> Labels:
    """Those of `LEXICAL`, bit by bit, of any text: what a model writes need not parse."""
    found = _Lexical(doc.text, LEXICAL)
    found.read()
    return found.labels


WRITTEN_PYTHON = Labelling(LEXICAL, lexical_labels)
PYTHON = Labelling(CONCEPTS, python_labels, WRITTEN_PYTHON)

_BODIES: dict[type, str] = {
    ast.For: "loop body", ast.AsyncFor: "loop body", ast.While: "loop body", ast.Try: "try body",
    ast.ExceptHandler: "except body", ast.ClassDef: "class body",
}  # fmt: skip
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Positioned = ast.expr | ast.stmt | ast.arg | ast.keyword | ast.alias | ast.excepthandler


class _Lexical(Marks):
    """What `tokenize` knows: comments, literals, keywords, signs, names, indentation, ends of lines."""

    def __init__(self, source: str, names: tuple[str, ...]) -> None:
        super().__init__(source, names)
        self.source = source
        self.lines = source.split("\n")  # ast counts lines as Python's tokenizer does, by these ends alone
        self.starts = np.cumsum([0, *(len(line) + 1 for line in self.lines)])

    def at(self, line: int, column: int) -> int:
        """Character of a line (from 1) and a column in characters."""
        return int(self.starts[line - 1]) + column

    def read(self) -> None:
        """Mark all of it, as far as the source can be read."""
        open_brackets: list[int] = []
        open_f_strings: list[int] = []
        try:
            for token in tokenize.generate_tokens(io.StringIO(self.source).readline):
                start, end = self.at(*token.start), self.at(*token.end)
                kind = tokenize.tok_name[token.type]
                if kind == "FSTRING_START":  # since Python 3.12 an f-string is many tokens
                    open_f_strings.append(start)
                elif kind == "FSTRING_END":
                    self._string(open_f_strings.pop(), end, is_f=True)
                elif not open_f_strings:
                    self._token(token, start, end, open_brackets)
        except (tokenize.TokenError, SyntaxError):
            pass  # text that a model wrote may end anywhere
        inside = self.labels & self.bits["string"]
        for number, line in enumerate(self.lines):
            code = len(line.lstrip(" \t"))
            start, end = int(self.starts[number]), int(self.starts[number]) + len(line)
            if code and not inside[start]:
                self.mark("indentation", start, end - code)
                if len(line) - code >= _DEEP_INDENT:
                    self.mark("deeply indented", start, end)

    def _token(self, token: tokenize.TokenInfo, start: int, end: int, open_brackets: list[int]) -> None:
        if token.type == tokenize.STRING:
            self._string(start, end, is_f="f" in re.split("['\"]", token.string)[0].lower())
        elif token.type == tokenize.NUMBER:
            self.mark("integer" if _is_whole(token.string) else "float", start, end)
        elif token.type == tokenize.COMMENT:
            self.mark("comment", start, end)
        elif token.type in (tokenize.NEWLINE, tokenize.NL):
            self.mark("end of line" if token.line.strip() else "blank line", start, start + 1)
        elif token.type == tokenize.NAME:
            self._name(token.string, start, end)
        elif token.type == tokenize.OP:
            if token.string in _BY_OPERATOR:
                self.mark(_BY_OPERATOR[token.string], start, end)
            if token.string in "([{":
                open_brackets.append(start)
            elif token.string in ")]}" and open_brackets:
                if len(open_brackets) == _DEEP_BRACKETS:
                    self.mark("deep in brackets", open_brackets[-1], end)
                open_brackets.pop()

    def _string(self, start: int, end: int, is_f: bool) -> None:
        self.mark("string", start, end)
        if is_f:
            self.mark("f-string", start, end)

    def _name(self, name: str, start: int, end: int) -> None:
        if name in _BY_KEYWORD:
            self.mark(_BY_KEYWORD[name], start, end)
        elif keyword.iskeyword(name):
            return
        elif name == "self":
            self.mark("self", start, end)
        elif name.startswith("__") and name.endswith("__"):
            self.mark("dunder name", start, end)
        elif name.startswith("_"):
            self.mark("private name", start, end)
        elif len(name) > 1 and name.isupper():
            self.mark("upper-case name", start, end)


class _Python(ast.NodeVisitor, _Lexical):
    """What `ast` knows beside: what names and expressions are for, and in which bodies they stand."""

    def __init__(self, source: str) -> None:
        _Lexical.__init__(self, source, CONCEPTS)
        self.depth = 0  # of functions

    def span(self, node: _Positioned) -> tuple[int, int]:
        """A node's characters. ast counts columns in bytes of UTF-8."""

        def place(line: int, column: int) -> int:
            text = self.lines[line - 1]
            return self.at(line, column if text.isascii() else len(text.encode()[:column].decode()))

        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return place(node.lineno, node.col_offset), place(node.end_lineno, node.end_col_offset)

    def mark_node(self, concept: str, node: _Positioned | None) -> None:
        if node is not None:
            self.mark(concept, *self.span(node))

    def mark_body(self, concept: str, body: list[ast.stmt]) -> None:
        if body:
            self.mark(concept, self.span(body[0])[0], self.span(body[-1])[1])

    def mark_word(self, concept: str, word: str, start: int) -> None:
        """The first occurrence of a name from `start` on."""
        found = re.compile(rf"\b{re.escape(word)}\b").search(self.source, start)
        if found:
            self.mark(concept, *found.span())

    def mark_last_line(self, body: list[ast.stmt]) -> None:
        end = self.span(body[-1])[1]
        self.mark("last line of a block", self.source.rfind("\n", 0, end) + 1, end)

    # What a node says of itself and of its parts; `generic_visit` goes on into the parts.

    def generic_visit(self, node: ast.AST) -> None:
        for kind, concept in _BODIES.items():
            if isinstance(node, kind):
                self.mark_body(concept, node.body)  # type: ignore[attr-defined]
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and not isinstance(node, ast.Module):
            self.mark_last_line(body)
        super().generic_visit(node)

    def function(self, node: _Function) -> None:
        self.mark_word("name of a function, defined", node.name, self.span(node)[0])
        self.docstring(node)
        for decorator in node.decorator_list:
            self.mark_node("decorator", decorator)
        a = node.args
        for parameter in (*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))):
            start = self.span(parameter)[0]
            self.mark("parameter, defined", start, start + len(parameter.arg))
            self.mark_node("annotation", parameter.annotation)
        for default in (*a.defaults, *a.kw_defaults):
            self.mark_node("default of a parameter", default)
        self.mark_node("annotation", node.returns)
        self.mark_body("nested function body" if self.depth else "function body", node.body)
        self.depth += 1
        self.generic_visit(node)
        self.depth -= 1

    visit_FunctionDef = visit_AsyncFunctionDef = function

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.mark_word("name of a class, defined", node.name, self.span(node)[0])
        self.docstring(node)
        for decorator in node.decorator_list:
            self.mark_node("decorator", decorator)
        for base in node.bases:
            self.mark_node("base of a class", base)
        depth, self.depth = self.depth, 0  # methods are not nested functions
        self.generic_visit(node)
        self.depth = depth

    def visit_Module(self, node: ast.Module) -> None:
        self.docstring(node)
        self.generic_visit(node)

    def docstring(self, node: _Function | ast.ClassDef | ast.Module) -> None:
        if ast.get_docstring(node, clean=False) is not None:
            self.mark_node("docstring", node.body[0])

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """What is inside an f-string has no place of its own before Python 3.12, so it is not looked at."""

    def imports(self, node: ast.Import | ast.ImportFrom) -> None:
        self.mark_node("import statement", node)
        for name in node.names:
            self.mark_node("imported name", name)

    visit_Import = visit_ImportFrom = imports

    def visit_Attribute(self, node: ast.Attribute) -> None:
        end = self.span(node)[1]
        self.mark("attribute", end - len(node.attr), end)
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if node.id != "self":
            self.mark_node(_BY_CONTEXT.get(type(node.ctx), "read name"), node)

    def visit_Call(self, node: ast.Call) -> None:
        start, end = self.span(node.func)
        name = node.func.attr if isinstance(node.func, ast.Attribute) else None
        if isinstance(node.func, ast.Name) or name:
            self.mark("called name", end - len(name) if name else start, end)
        for argument in node.keywords:
            if argument.arg:
                start = self.span(argument)[0]
                self.mark("keyword argument", start, start + len(argument.arg))
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.mark_node("subscript", node.slice)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.mark_node("annotation", node.annotation)
        self.generic_visit(node)

    def condition(self, node: ast.If | ast.While | ast.IfExp) -> None:
        self.mark_node("condition", node.test)
        self.generic_visit(node)

    visit_If = visit_While = visit_IfExp = condition

    def visit_Dict(self, node: ast.Dict) -> None:
        for key in node.keys:
            self.mark_node("key of a dict literal", key)
        self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> None:
        self.mark_node("raise statement", node)
        self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> None:
        self.mark_node("returned value", node.value)
        self.generic_visit(node)

    def comprehension(self, node: ast.expr) -> None:
        self.mark_node("comprehension", node)
        self.generic_visit(node)

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = comprehension


_BY_CONTEXT: dict[type, str] = {ast.Store: "assigned name", ast.Del: "assigned name"}


def _is_whole(number: str) -> bool:
    try:
        int(number, 0)
    except ValueError:
        return False
    return True
