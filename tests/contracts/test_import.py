"""Importing is free: nothing heavy is loaded before it is needed."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.conftest import ROOT

HEAVY = {"torch", "transformers", "peft", "accelerate", "datasets", "optuna", "onnx", "onnxruntime", "openvino", "nncf", "altair",
         "vl_convert", "sklearn", "scipy", "pandas", "pyarrow", "ray", "tensorrt"}


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after the code."""
    shown = subprocess.run([sys.executable, "-c", f"{code}\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))"],
                           cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {name.split(".")[0] for name in json.loads(shown.splitlines()[-1])}


def test_the_package_alone_loads_nothing_heavy() -> None:
    loaded = loaded_by("import trimtune")
    assert "trimtune" in loaded
    assert not loaded & (HEAVY | {"numpy", "pydantic", "yaml", "typer", "rich", "jinja2"})


def test_an_error_can_be_caught_without_loading_anything() -> None:
    assert not loaded_by("from trimtune import TrimtuneError") & HEAVY


def test_every_part_imports_without_its_libraries() -> None:
    loaded = loaded_by("from trimtune import parts\n"
                       "for kind in parts.ROOMS:\n    for name in parts.names(kind): parts.load(kind, name)")
    assert not loaded & HEAVY


def test_reading_a_study_loads_nothing_heavy() -> None:
    loaded = loaded_by("from pathlib import Path\nfrom trimtune.study.read import read, schema\n"
                       "from trimtune.study.expand import expand\n"
                       "assert len(expand(read(Path('examples/helpdesk.yaml')))) >= 10\nschema()")
    assert "yaml" in loaded
    assert not loaded & HEAVY


def test_the_command_line_loads_nothing_heavy() -> None:
    assert not loaded_by("import trimtune.cli") & HEAVY
