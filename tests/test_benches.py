"""The benches use what the package has: they run for minutes, so that nobody sees at once when they can't begin."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import ROOT

BENCHES = sorted((ROOT / "bench").glob("*.py"))


def names_of(module: ModuleType) -> set[str]:
    """What a module has, the names among it that only a type checker sees."""
    hidden = [node for node in ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8")).body if isinstance(node, ast.If)]
    return {*dir(module), *(each.id for node in hidden for each in ast.walk(node) if isinstance(each, ast.Name))}


def lacking(tree: ast.Module) -> Iterator[str]:
    """Names of the package that the code takes from its modules, and that they don't have."""
    modules: dict[str, ModuleType] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "trimtune":
            home = importlib.import_module(str(node.module))
            for name in node.names:
                try:
                    found = getattr(home, name.name, None) or importlib.import_module(f"{node.module}.{name.name}")
                except ImportError:
                    yield f"line {node.lineno}: {node.module}.{name.name}"
                    continue
                if isinstance(found, ModuleType):
                    modules[name.asname or name.name] = found
    for node in ast.walk(tree):
        if (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules
                and node.attr not in names_of(modules[node.value.id])):
            yield f"line {node.lineno}: {node.value.id}.{node.attr}"


@pytest.mark.parametrize("path", BENCHES, ids=lambda path: Path(path).stem)
def test_what_a_bench_takes_from_the_package_is_there(path: Path) -> None:
    assert not list(lacking(ast.parse(path.read_text(encoding="utf-8"))))


def test_the_check_sees_what_is_gone() -> None:
    gone = "from trimtune.trim import _importance\nfrom trimtune.trim import no_such_trim\n_importance.recovered()\n"
    assert list(lacking(ast.parse(gone))) == ["line 2: trimtune.trim.no_such_trim", "line 3: _importance.recovered"]
