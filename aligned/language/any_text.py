"""What every token of any text is: labels that need no grammar and no judge, in any language.

Each character is replaced by a letter for its Unicode class; where words, numbers, sentences and lines start and end is
then a matter of patterns:

    He paid 42 (not 40).
    Aa aaaa 99 (aaa 99).

What most tokens are, such as a word in lower case, is no concept. A Chinese or Japanese character counts as a word, and
so does what stands between two blanks in a language that writes none between its words.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

from aligned.language import text
from aligned.language.labels import PYTHON, Labelling, Labels, Marks
from aligned.language.text import Document

TOP = 20  # of the commonest words, each of which is a concept
_COUNTED = 1_000_000  # characters in which they are counted
_SHORT, _LONG = 3, 10  # letters of a short word at most, of a long one at least

# The shape's letters: A a upper and lower case, o without case, w a word by itself, m what belongs to the letter before
# it, 9 digits, . ends a sentence before a blank, 。 anywhere, ' " ( ) -, a blank, a line's end, and , for all others.
_OF_CATEGORY = {
    "Lu": "A", "Lt": "A", "Ll": "a", "Lo": "o", "Lm": "o", "Mn": "m", "Mc": "m", "Me": "m", "Cf": "m",
    "Nd": "9", "Nl": "9", "No": "9", "Ps": "(", "Pe": ")", "Pi": '"', "Pf": '"', "Pd": "-", "Zs": " ",
}  # fmt: skip
_OF_CHARACTER = {
    **dict.fromkeys(".!?…؟।۔", "."), **dict.fromkeys("。｡！？", "。"), **dict.fromkeys("'’", "'"),
    **dict.fromkeys('"„「」『』', '"'), "\n": "\n", "\t": " ",
}  # fmt: skip
_WORDS_BY_THEMSELVES = ("CJK UNIFIED", "CJK COMPATIBILITY IDEOGRAPH", "HIRAGANA", "KATAKANA")
_SIGNS = {
    "full stop": ".。｡।۔",
    "comma": ",，、،",
    "colon": ":：",
    "semicolon": ";；؛",
    "question mark": "?？؟",
    "exclamation mark": "!！",
    "apostrophe": "'’",
    "quotation mark": '"“”„«»「」『』',
    "slash": "/\\",
    "underscore": "_",
}
_SIGNS_BY_CATEGORY = {
    "opening bracket": "Ps",
    "closing bracket": "Pe",
    "hyphen or dash": "Pd",
    "currency sign": "Sc",
    "mathematical sign": "Sm",
}
_BY_CHARACTER = {sign: name for name, signs in _SIGNS.items() for sign in signs}
_BY_CATEGORY = {category: name for name, category in _SIGNS_BY_CATEGORY.items()}

_WORD = r"(?:[Aao][Aaom]*(?:'[Aaom]+)*|wm*)"
_NO_WORD = r"[^Aaowm\n]*"
# The group, or else the whole, has the label. A word in lower case starts a sentence only where it starts a paragraph.
_PATTERNS = {
    "first word of a sentence": rf"(?:(?:\A|\n *\n)\W*|[.][)'\"]*\s[\s('\"]*(?=[Aow])|。[\s)('\"]*)({_WORD})",
    "last word of a sentence": rf"({_WORD})(?=[)'\"]*(?:[.][)'\"]*(?:\s+[('\"]*[Aow9]|\s*\Z)|。))",
    "first word of a line": rf"^{_NO_WORD}({_WORD})",
    "last word of a line": rf"({_WORD}){_NO_WORD}$",
    "first line of a document": r"\A\s*(\S[^\n]*)",
    "end of line": r"\n",
    "end of a paragraph": r"\n *\n\s*",
    "indentation": r"^ +(?=\S)",
    "mark of a list's item": r"^ *([-+,]|9+[.)])(?= )",
    "number": r"9+",
    "number of one digit": r"(?<!9)9(?!9)",
    "number of four digits": r"(?<!9)9{4}(?!9)",
    "number with a sign in it": r"9+(?:[.,]9+)+",
    "in brackets": r"\(([^()\n]+)\)",
    "in quotation marks": r'"([^"\n]+)"',
}
_COMPILED = {name: re.compile(pattern, re.MULTILINE) for name, pattern in _PATTERNS.items()}
_OF_WORDS = (
    "inside a word", "word of one letter", "short word", "long word", "capitalised word", "upper-case word",
    "mixed-case word", "word with an apostrophe", "letter outside ASCII",
)  # fmt: skip
NAMES = (*_OF_WORDS, *_PATTERNS, *_SIGNS, *_SIGNS_BY_CATEGORY, "other sign")


def labelling_of(source: str) -> Labelling:
    """The labelling of a text, as `aligned.language.text.documents` takes it: Python's of `installed-python`; of every
    other text `any_text`, of its held-out part, and a printed line says so."""
    if source == text.INSTALLED:
        return PYTHON
    found = any_text(text.documents(source, "held_out"))
    print(
        f"{source} is not read as Python: its tokens get labels that any text has (place in word, sentence and line, "
        f"case, digits, signs, and its {len(found.names) - len(NAMES)} commonest words)"
    )
    return found


def any_text(docs: Iterable[Document]) -> Labelling:
    """The labels of `NAMES`, and one for each of the 20 commonest words of some documents (in the first million of
    their characters, upper and lower case alike)."""
    counts: Counter[str] = Counter()
    read = 0
    for doc in docs:
        counts.update(doc.text[m.start() : m.end()].casefold() for m in _words(shape(doc.text)))
        read += len(doc.text)
        if read >= _COUNTED:
            break
    common = {word: f'the word "{word}"' for word, _ in sorted(counts.items(), key=lambda of: (-of[1], of[0]))[:TOP]}
    names = (*NAMES, *common.values())

    def of(doc: Document) -> Labels:
        labels = _AnyText(doc.text, names)
        labels.read(common)
        return labels.labels

    return Labelling(names, of)


def shape(characters: str) -> str:
    """A letter for each character's class."""
    return characters.translate(_SHAPES)


class _Shapes(dict[int, str]):
    """From a character's number to the letter of its class, found when first asked for."""

    def __missing__(self, number: int) -> str:
        character = chr(number)
        found = _OF_CHARACTER.get(character) or _OF_CATEGORY.get(unicodedata.category(character), ",")
        if found == "o" and unicodedata.name(character, "").startswith(_WORDS_BY_THEMSELVES):
            found = "w"
        return self.setdefault(number, " " if found == "," and character.isspace() else found)


_SHAPES = _Shapes()


def _words(shaped: str) -> Iterable[re.Match[str]]:
    return re.finditer(_WORD, shaped)


class _AnyText(Marks):
    def __init__(self, source: str, names: tuple[str, ...]) -> None:
        super().__init__(source, names)
        self.source, self.shape = source, shape(source)

    def read(self, common: dict[str, str]) -> None:
        for match in _words(self.shape):
            self._word(match.group(), self.source[match.start() : match.end()], match.start(), common)
        for name, pattern in _COMPILED.items():
            for match in pattern.finditer(self.shape):
                self.mark(name, *match.span(pattern.groups))
        for match in re.finditer(r"[^Aaowm9\s]", self.shape):
            self.mark(_sign(self.source[match.start()]), *match.span())

    def _word(self, shaped: str, word: str, start: int, common: dict[str, str]) -> None:
        end = start + len(word)
        self.mark("inside a word", start + 1, end)
        letters = re.sub("[m']", "", shaped)
        if letters == "w":  # of a character that is a word nothing else can be said
            pass
        elif len(letters) == 1:
            self.mark("word of one letter", start, end)
        elif len(letters) <= _SHORT:
            self.mark("short word", start, end)
        elif len(letters) >= _LONG:
            self.mark("long word", start, end)
        if len(letters) > 1 and "A" in letters:
            case = "upper" if set(letters) == {"A"} else "mixed" if "A" in letters[1:] else "capital"
            self.mark("capitalised word" if case == "capital" else f"{case}-case word", start, end)
        if "'" in shaped:
            self.mark("word with an apostrophe", start, end)
        if not word.isascii():
            for at, character in enumerate(word, start):
                if not character.isascii():
                    self.mark("letter outside ASCII", at, at + 1)
        if (folded := word.casefold()) in common:
            self.mark(common[folded], start, end)


def _sign(character: str) -> str:
    return _BY_CHARACTER.get(character) or _BY_CATEGORY.get(unicodedata.category(character), "other sign")
