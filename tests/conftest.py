"""What every room's tests share."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from trimtune.store import link_tree

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The public data sets beside the checkout (SST-2, CLINC150, …), which the project doesn't carry itself."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the data sets in {folder}")
    return folder


LABELS = tuple(f"intent_{index:02}" for index in range(12))
KINDS = ("full", "lora", "prefix", "prompt")
"""how a tuned model can lie in its folder: whole weights (of `full` and `head`), or an adapter beside the base"""


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Model folders around minilm with 12 labels, as each method leaves them; heads and adapters are random and not zero."""
    home = tmp_path_factory.mktemp("tuned")

    @cache
    def make(kind: str) -> Path:
        import torch
        from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model

        from trimtune.study.model import locate
        from trimtune.tasks import text_classification as task

        folder = home / kind
        link_tree(locate("minilm"), folder)
        task.describe_base(folder, LABELS)
        torch.manual_seed(KINDS.index(kind))
        model = task.load_base(folder, "sdpa")
        if kind == "full":
            torch.nn.init.normal_(model.classifier.weight)
            (folder / "model.safetensors").unlink()
            model.save_pretrained(folder)
            return folder
        adapters = {"lora": lambda: LoraConfig(task_type="SEQ_CLS", r=8, target_modules="all-linear"),
                    "prefix": lambda: PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=20),
                    "prompt": lambda: PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=20)}
        wrapped = get_peft_model(model, adapters[kind]())
        spread = {"lora_B": 0.02, "prompt_encoder": 0.5, "modules_to_save.default.weight": 1.0}
        for name, parameter in wrapped.named_parameters():
            for part, std in spread.items():
                if part in name:
                    torch.nn.init.normal_(parameter, std=std)
        wrapped.save_pretrained(str(folder / task.ADAPTER))
        return folder

    return make


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
