"""What a value means that is written on the command line, or in a preset."""

from __future__ import annotations

import ast
import re
from typing import Any, ClassVar

import yaml

from aligned.checks import said


def kind(value: Any) -> str:
    """The name of a value's type, such as `list of int`."""
    return f"list of {type(value[0]).__name__}" if isinstance(value, list) and value else type(value).__name__


class Words(str):
    """A value as it was written on the command line. What it means depends on the parameter: see `typed`."""


def typed(name: str, value: Any, like: Any) -> Any:
    """`value` if it is of the type of `like`; any value, where `like` is None. An int will do for a float, a whole
    float for an int (1e6), and a tuple for a list.

    `Words` are taken as they are where `like` is a string, and read (`written`) where it is not; with commas between
    them they make a list.

    Raises:
        TypeError: another type; names the parameter.
    """
    if isinstance(value, Words):
        if isinstance(like, str):
            return str(value)
        words = isinstance(like, list) and not value.lstrip().startswith(("[", "("))
        if words and ("," in value or isinstance((like or [None])[0], str)):
            value = [Words(word.strip()) for word in value.split(",")]
            if not all(value):
                raise TypeError(f"{name} has a comma too many: a list is written {name} A,B")
        else:
            value = written(value)
    if like is None:
        return value
    if isinstance(like, list) and isinstance(value, list | tuple):
        first = like[0] if like else None
        return [typed(f"{name}[{i}]", v, first) for i, v in enumerate(value)]
    if isinstance(like, int) and not isinstance(like, bool) and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(like, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(like):
        flat = isinstance(like, list) and not any(isinstance(v, dict | list) for v in like)
        commas = f", on the command line {','.join(map(str, like))}" if flat else ""
        one = f"; one alone is written '[{value}]'" if flat and isinstance(value, int | float | str) else ""
        raise TypeError(
            f"{name} is {said(value)} ({kind(value)}); it must be of type {kind(like)}, such as {like!r}{commas}{one}"
        )
    return value


def written(text: str) -> Any:
    """What words mean: 3, 1e-4, [1, 2] as in Python; true, words and lists of words as in YAML, without comments."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        pass
    try:
        return str(text) if re.search(r"(^|\s)#", text) else yaml.load(text, Yaml)
    except (yaml.YAMLError, RecursionError):
        return str(text)


class Yaml(yaml.SafeLoader):
    """YAML as version 1.2 has it, and people expect it: 1e-3 is a number, 010 is 10, 1:30, no and a date are words, and
    a key stands once. PyYAML by itself reads version 1.1, and takes the last of two equal keys."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: {', '.join(twice)} is given twice")
        return node


for _kind_of, _pattern in (
    ("bool", "(?:true|True|TRUE|false|False|FALSE)$"),
    ("null", "(?:~|null|Null|NULL|)$"),
    ("merge", "<<$"),  # not in 1.2, and the presets' way to share values
    ("int", "[-+]?[0-9](?:_?[0-9])*$"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"),
):
    Yaml.add_implicit_resolver(f"tag:yaml.org,2002:{_kind_of}", re.compile(_pattern), None)
Yaml.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))
