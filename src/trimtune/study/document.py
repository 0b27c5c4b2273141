"""A YAML file as plain data, with the line of every key kept for messages.

Scalars follow YAML 1.2: `yes`, `no` and `on` are text, `1e-3` is a number. Anchors work; tags are refused, so that a
study file can never run code.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimtune.errors import TrimtuneError
from trimtune.study.text_file import lines, shown

Keys = tuple[str | int, ...]

_MAX_CHARACTERS, _MAX_NODES = 200_000, 20_000
_INT = re.compile(r"[-+]?[0-9]{1,400}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS = {"": None, "~": None, "null": None, "Null": None, "NULL": None,
          "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


@dataclass(frozen=True)
class Place:
    """A spot in a document. As text: `study.yaml:7: tune[0].lora.r`."""

    file: str
    lines: Mapping[Keys, int] = field(default_factory=dict)
    path: Keys = ()

    def __truediv__(self, key: str | int) -> Place:
        return Place(self.file, self.lines, (*self.path, key))

    def __str__(self) -> str:
        known = next((self.path[:end] for end in range(len(self.path), -1, -1) if self.path[:end] in self.lines), None)
        line = f":{self.lines[known]}" if known is not None else ""
        name = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in self.path).removeprefix(".")
        return ": ".join(part for part in (self.file + line, name) if part)


def load(path: Path) -> tuple[dict[str, Any], Place]:
    """The document's top mapping and its place.

    Raises:
        TrimtuneError: no UTF-8 text, no YAML, duplicate keys, tags, or something else than a mapping at the top.
    """
    import yaml

    file = shown(path)
    text = "".join(lines(path))
    if len(text) > _MAX_CHARACTERS:
        raise TrimtuneError(f"{file}: {len(text):,} characters are too many for a study.", f"Allowed: {_MAX_CHARACTERS:,}.",
                            "Is it a data file? `trimtune init FILE` writes a study for one.")
    try:
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise _not_yaml(file, text, error) from None
    except (ValueError, OverflowError, RecursionError) as error:  # PyYAML lets these through for odd escapes and depths
        raise TrimtuneError(f"{file}: not YAML ({error}).", "A study is a short YAML file of `key: value` lines.",
                            "`trimtune init FILE` writes one to start from.") from None
    if root is None or not isinstance(root, yaml.MappingNode):
        what = "has no content" if root is None else "does not begin with `key: value` lines"
        raise TrimtuneError(f"{file}:1: the study {what}.", "A study is a YAML mapping with at least `name` and `data`.",
                            "`trimtune init FILE` writes one to start from.")
    found: dict[Keys, int] = {(): 1}
    data: dict[str, Any] = _plain(root, Place(file, found), found, [0])
    return data, Place(file, found)


def _plain(node: Any, place: Place, found: dict[Keys, int], seen: list[int]) -> Any:
    import yaml

    here = f"{place.file}:{node.start_mark.line + 1}"
    seen[0] += 1
    if seen[0] > _MAX_NODES or len(place.path) > 30:
        raise TrimtuneError(f"{here}: the study is nested too deeply, or its aliases grow without end.",
                            f"Allowed: 30 levels and {_MAX_NODES:,} entries.", "Write the values out, without anchors (&, *).")
    found.setdefault(place.path, node.start_mark.line + 1)
    plain = {yaml.MappingNode: "map", yaml.SequenceNode: "seq", yaml.ScalarNode: "str"}[type(node)]
    if node.tag != f"tag:yaml.org,2002:{plain}":
        raise TrimtuneError(f"{here}: the tag '{node.tag}' is not taken.",
                            "A study holds plain text, numbers, lists and mappings.", "Remove the tag (it begins with '!').")
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, place / index, found, seen) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node.value, node.style is None, here)
    result: dict[str, Any] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode) or not key.value:
            raise TrimtuneError(f"{place.file}:{line}: a key must be a word.", "Allowed: `key: value`.",
                                "Write the key as plain text.")
        if key.value in result:
            raise TrimtuneError(f"{place.file}:{line}: the key '{key.value}' is given twice.",
                                f"It stands in line {found[(*place.path, key.value)]} already; each key is allowed once.",
                                "Remove one of the two.")
        found[(*place.path, key.value)] = line
        result[_scalar(key.value, False, here)] = _plain(value, place / key.value, found, seen)
    return result


def _scalar(text: str, plain: bool, here: str) -> Any:
    if re.search("[\0\ud800-\udfff]", text):
        raise TrimtuneError(f"{here}: the value holds a character that no file name or label can have.",
                            "Allowed: any text without NUL and without half surrogates.", "Remove the \\0 or \\ud… escape.")
    if not plain:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    return text


def _not_yaml(file: str, text: str, error: Any) -> TrimtuneError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line = mark.line + 1 if mark else text[: getattr(error, "position", 0) or 0].count("\n") + 1
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error).splitlines()[0]
    source = (text.splitlines() or [""])[min(line, len(text.splitlines()) or 1) - 1]
    do = "Check the indentation, the quotes and the brackets in this line and the one before."
    if "\t" in source[: len(source) - len(source.lstrip())] or "'\\t'" in problem:
        problem, do = "a tab stands where only spaces may", "Replace the tab with spaces."
    elif re.search(r":\s*[>|%@`]", source):
        do = 'Put the value in quotes, such as accuracy: ">= 0.9".'
    elif "single document" in str(error):
        problem, do = "a second document begins here", "Keep one study per file; remove the `---`."
    return TrimtuneError(f"{file}:{line}: not YAML: {problem}.", f"The line reads: {source.strip()[:100]}", do)
