from __future__ import annotations

import runpy
from typing import Any

from tests.conftest import ROOT
from trimtune import parts

DOCS: dict[str, Any] = runpy.run_path(str(ROOT / "scripts" / "docs.py"))


def test_the_page_of_parts_is_what_make_docs_writes() -> None:
    assert DOCS["PAGE"].read_text(encoding="utf-8") == DOCS["page"](), "run `make docs`"


def test_the_page_names_every_part_and_option() -> None:
    page = DOCS["page"]()
    for kind in parts.ROOMS:
        for name in parts.names(kind):
            assert f"### {name}\n" in page
            for option in getattr(getattr(parts.load(kind, name), "Config", None), "model_fields", {}):
                assert f"| `{option}` |" in page


def test_bounds_are_in_words() -> None:
    assert DOCS["allowed"]({"type": "integer", "minimum": 1, "maximum": 8}) == "integer ≥ 1, ≤ 8"
    either = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    assert DOCS["allowed"](either) == "string or list of string"
    assert DOCS["row"]("r", {"type": "integer", "exclusiveMinimum": 0, "default": 8, "description": "rank"}) == \
        "| `r` | 8 | integer > 0 | rank |"
