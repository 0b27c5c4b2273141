"""A new part is one file: dropped into a folder, it is in every list, with no other edit."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import ROOT

CONFIG = '''from pydantic import BaseModel, ConfigDict, Field


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    zest: int = Field(3, ge=1, le=9, description="how much zest it adds")


TASKS = ("text_classification",)
'''
LEMON = '''"""Lemon tuning: sours every weight a little.

Use it in a test only; weights are [D, D].

Source: Citrus 2026, section 1.
"""

''' + CONFIG + '''LEARNING_RATES = (1e-4, 1e-2)


def prepare(model, config, task):
    """The model as it is."""
    return model
'''
PEEL = '''"""peel: takes the outermost layer off.

Use it in a test only.

Source: Citrus 2026, section 2.
"""

''' + CONFIG + '''NEEDS_DATA = False
NUMERICS = None


def run(folder, source, config, setting):
    """Nothing."""
    return {}
'''
JUICER = '''"""juicer: runs any lemon.

Use it in a test only; logits are [B, C].
"""

''' + CONFIG + '''NUMERICS = {task: ("plain",) for task in TASKS}
TOLERANCE = {"plain": 1e-4}


def available():
    return None


def export(folder, source, config, numerics, calibration, max_length, task):
    """Nothing."""
    return {}


def load(folder, threads):
    return None
'''
FILES = {"tune/methods/lemon.py": LEMON, "trim/peel.py": PEEL, "engines/juicer.py": JUICER}
DROPPED = {"method": "lemon", "trim": "peel", "engine": "juicer"}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one new part of three kinds, and a study that uses them."""
    root = tmp_path_factory.mktemp("house")
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    (root / "study.yaml").write_text("name: sour\ndata: helpdesk\ntune: [lemon]\ntrim: [{peel: {zest: 4}}]\nengine: [juicer]\n")
    return root


def run(house: Path, *words: str, parts: bool = True, folder: Path | None = None) -> str:
    env = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", **({"TRIMTUNE_PARTS": str(house)} if parts else {})}
    done = subprocess.run([sys.executable, *words], cwd=folder or house, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_found_loaded_and_explained(house: Path) -> None:
    code = ("import json; from trimtune import parts\n"
            f"print(json.dumps([[name in parts.names(kind), parts.load(kind, name).Config().zest, parts.doc(kind, name)[:6], "
            f"bool(parts.source_hash(kind, name))] for kind, name in {DROPPED}.items()]))")
    assert json.loads(run(house, "-c", code)) == [[True, 3, doc, True] for doc in ("Lemon ", "peel: ", "juicer")]


def test_it_leaves_the_other_parts_keys_alone(house: Path) -> None:
    code = "from trimtune import parts; print([parts.source_hash(k, n) for k, n in " \
           "(('method', 'lora'), ('trim', 'int8'), ('engine', 'torch_eager'))])"
    assert run(house, "-c", code) == run(house, "-c", code, parts=False)


def test_the_study_schema_names_it(house: Path) -> None:
    code = "import json; from trimtune.study.read import schema; print(json.dumps(schema()))"
    text = run(house, "-c", code)
    assert all(f'"{name}"' in text for name in DROPPED.values())
    assert "how much zest it adds" in text
    assert "lemon" not in run(house, "-c", code, parts=False)


def test_a_study_can_use_it(house: Path) -> None:
    code = ("from pathlib import Path; from trimtune.study.read import read; from trimtune.study.expand import expand\n"
            "print([c.name for c in expand(read(Path('study.yaml')))])")
    assert run(house, "-c", code).strip() == "['lemon@juicer', 'lemon+peel(zest=4)@juicer']"


@pytest.mark.slow
def test_the_command_line_lists_and_explains_it(house: Path) -> None:
    listed = run(house, "-m", "trimtune", "parts")
    assert all(name in listed for name in DROPPED.values())
    for name in DROPPED.values():
        explained = run(house, "-m", "trimtune", "explain", name)
        assert "Use it in a test only" in explained
        assert "how much zest it adds" in explained


def test_the_help_of_tune_names_it(house: Path) -> None:
    assert "lemon" in run(house, "-m", "trimtune", "tune", "--help")


@pytest.mark.slow
def test_the_contract_tests_find_it(house: Path) -> None:
    only = " or ".join(f"{kind}-{name}" for kind, name in DROPPED.items())
    shown = run(house, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/contracts/test_parts.py", "-k", only, folder=ROOT)
    passed = re.fullmatch(r"(\d+) passed, \d+ deselected in .*", shown.strip().splitlines()[-1])
    assert passed is not None and int(passed[1]) >= 5 * len(DROPPED), shown
