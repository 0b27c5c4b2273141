"""What every room's tests share."""

from __future__ import annotations

import csv
import fcntl
import shutil
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests import own_cores
from trimtune.store import link_tree

own_cores.take()  # before anything counts them
ROOT = Path(__file__).resolve().parent.parent
Once = Callable[[str, Callable[[Path], object]], Path]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of several processes none should be left with a long file at the end: those with the most slow tests go first."""
    if hasattr(config, "workerinput"):
        slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
        items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The public data sets beside the checkout (SST-2, CLINC150, …), which the project doesn't carry itself."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the data sets in {folder}")
    return folder


@pytest.fixture(scope="session")
def once(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Makes a folder of this name, unless one of the processes of this test run has made it. Read only: copy it to change it."""
    home = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        home = home.parent

    def folder(name: str, make: Callable[[Path], object]) -> Path:
        made, done = home / name, home / f"{name}.done"
        with (home / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(made, ignore_errors=True)
                made.mkdir()
                make(made)
                done.touch()
        return made

    return folder


LABELS = tuple(f"intent_{index:02}" for index in range(12))
KINDS = ("full", "lora", "prefix", "prompt")
"""how a tuned model can lie in its folder: whole weights (of `full` and `head`), or an adapter beside the base"""


def leave_adapter(model: Any, kind: str, folder: Path, spread: dict[str, float]) -> None:
    """Leave in `folder/adapter` what such a fit would, with random values in the place of learned ones.

    Args:
        spread: part of a parameter's name → the standard deviation that it is drawn with, where the method starts at nothing.
    """
    import torch
    from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model

    from trimtune.tasks import text_classification as task

    configs = {"lora": lambda: LoraConfig(task_type="SEQ_CLS", r=8, target_modules="all-linear"),
               "prefix": lambda: PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=20),
               "prompt": lambda: PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=20)}
    wrapped = get_peft_model(model, configs[kind]())
    for name, parameter in wrapped.named_parameters():
        for part, std in spread.items():
            if part in name:
                torch.nn.init.normal_(parameter, std=std)
    wrapped.peft_config["default"].base_model_name_or_path = "the base"  # a fit writes the study's word for it, not a folder
    wrapped.save_pretrained(str(folder / task.ADAPTER))


@pytest.fixture(scope="session")
def tuned(once: Once) -> Callable[[str], Path]:
    """Model folders around minilm with 12 labels, as each method leaves them; heads and adapters are random and not zero."""

    def make(kind: str, folder: Path) -> None:
        import torch

        from trimtune.study.model import locate
        from trimtune.tasks import text_classification as task

        link_tree(locate("minilm"), folder)
        task.describe_base(folder, LABELS)
        torch.manual_seed(KINDS.index(kind))
        model = task.load_base(folder, "sdpa")
        if kind == "full":
            torch.nn.init.normal_(model.classifier.weight)
            (folder / "model.safetensors").unlink()
            model.save_pretrained(folder)
        else:
            leave_adapter(model, kind, folder, {"lora_B": 0.02, "prompt_encoder": 0.5, "modules_to_save.default.weight": 1.0})

    return cache(lambda kind: once(f"tuned-{kind}", lambda folder: make(kind, folder)))


@pytest.fixture(scope="session")
def helpdesk_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rows folder: 96 / 48 / 48 lines of the bundled help desk set, all 12 intents in each split."""
    from trimtune.records import DataSpec
    from trimtune.study import data

    def some(split: data.Split, count: int) -> data.Split:
        order = sorted(range(len(split.texts)), key=lambda row: (split.labels[:row].count(split.labels[row]), row))
        return data.Split([split.texts[row] for row in order[:count]], [split.labels[row] for row in order[:count]])

    whole, folder = data.read(DataSpec(train="helpdesk"), seed=0), tmp_path_factory.mktemp("rows")
    data.save(data.Rows(some(whole.train, 96), some(whole.validation, 48), some(whole.test, 48), whole.facts), folder)
    return folder


@pytest.fixture(scope="session")
def helpdesk_files(helpdesk_rows: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same rows as a user's files: what a study takes as its `data`."""
    from trimtune.study import data

    home, rows, found = tmp_path_factory.mktemp("files"), data.load(helpdesk_rows), {}
    for name in ("train", "validation", "test"):
        split = getattr(rows, name)
        with (home / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            labels = (rows.facts.labels[one] for one in split.labels)
            csv.writer(file).writerows([("text", "label"), *zip(split.texts, labels, strict=True)])
        found[name] = str(home / f"{name}.csv")
    return found
