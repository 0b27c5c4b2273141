"""The house has one direction: a room may import from those before it, and from none behind it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import trimtune

SOURCE = Path(trimtune.__file__).parent
ORDER = ["errors", "records", "results", "parts", "outside_load", "process", "store", "study", "tasks", "tune", "trim", "engines",
         "measure", "chains", "choose", "report", "ship", "flow", "single", "api", "screen", "exits", "cli", "__main__"]
HEAVY = {"accelerate", "altair", "bitsandbytes", "datasets", "gguf", "huggingface_hub", "jsonschema", "llama_cpp", "nncf", "onnx",
         "onnxruntime", "onnxscript", "openvino", "optuna", "pandas", "peft", "pyarrow", "ray", "rouge_score", "sacrebleu",
         "safetensors", "scipy", "sklearn", "tensorrt", "tokenizers", "torch", "torchao", "transformers", "vl_convert"}
DOORS = {"__init__.py", "tune/__init__.py"}
"""`trimtune.run` and `trimtune.tune(...)`: they hand out what the last rooms make, and nothing behind them uses them so"""
FILES = sorted(SOURCE.rglob("*.py"))


def room(module: str) -> str | None:
    """`trimtune.study.read` → `study`; None for another package and for trimtune itself."""
    names = module.split(".")
    return names[1] if names[0] == "trimtune" and len(names) > 1 else None


def imported(tree: ast.AST, package: str) -> Iterator[tuple[str, int]]:
    """Every module that the code imports, wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = package.split(".")[:len(package.split(".")) + 1 - node.level] if node.level else []
            origin = ".".join([*parent, *([node.module] if node.module else [])])
            if origin == "trimtune":
                yield from ((f"trimtune.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield origin, node.lineno


def at_import_time(body: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports that run when the module is imported: not those in functions or for the type checker only."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from at_import_time(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for field in ("body", "orelse", "finalbody"):
                yield from at_import_time(getattr(node, field, []))
            for handler in getattr(node, "handlers", []):
                yield from at_import_time(handler.body)


def package_of(path: Path) -> str:
    return ".".join(["trimtune", *path.relative_to(SOURCE).parent.parts])


def test_each_room_has_its_place() -> None:
    rooms = {path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in FILES} - {"__init__"}
    assert rooms == set(ORDER), f"say in ORDER, CONTRIBUTING and docs/architecture.md where these stand: {rooms ^ set(ORDER)}"


@pytest.mark.parametrize("path", [path for path in FILES if str(path.relative_to(SOURCE)) not in DOORS],
                         ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_one_way(path: Path) -> None:
    own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    back = [f"line {line}: {name}" for name, line in imported(tree, package_of(path))
            if (other := room(name)) in ORDER and ORDER.index(other) > ORDER.index(own)]
    assert not back, f"{path.relative_to(SOURCE)} imports from rooms behind it: {back}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_heavy_libraries_wait_for_a_function(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    body: list[ast.stmt] = list(at_import_time(tree.body))
    found = {name.split(".")[0]: line for name, line in imported(ast.Module(body, []), package_of(path))}
    assert not found.keys() & HEAVY, f"{path.relative_to(SOURCE)} imports at module level: {found}"


def test_the_check_sees_what_it_should() -> None:
    tree = ast.parse("from trimtune import flow\nfrom .read import read\nfrom ..store import Store\n"
                     "def f():\n    import trimtune.cli\n")
    assert [room(name) for name, _ in imported(tree, "trimtune.study")] == ["flow", "study", "store", "cli"]
    late = ("if TYPE_CHECKING:\n    import torch\nelse:\n    import peft\n"
            "try:\n    import ray\nexcept ImportError:\n    import nncf\n"
            "def f():\n    import onnx\nclass C:\n    import scipy\n")
    names = [alias.name for node in at_import_time(ast.parse(late).body) for alias in node.names]
    assert names == ["peft", "ray", "nncf", "scipy"]
