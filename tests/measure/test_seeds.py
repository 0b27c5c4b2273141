"""A fit's test score, in plain PyTorch, for both tasks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from trimtune.measure._seeds import score_seeds
from trimtune.records import Artifact, Use
from trimtune.results import Search, SeedFit
from trimtune.store import Store, link_tree
from trimtune.study import data
from trimtune.study.model import locate
from trimtune.tune.scoring import score_model

READING = {"kind": "pairs", "template": "", "learned": "answers"}


@pytest.mark.slow
def test_a_classifiers_accuracy(rows: Artifact, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(locate("minilm"), num_labels=3, dtype="float32").eval()
    tokenizer = AutoTokenizer.from_pretrained(locate("minilm"))
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    found = score_model(tmp_path, tmp_path / "model", rows.folder, "test", 32, "text_classification")
    test = data.load(rows.folder).test
    with torch.inference_mode():
        alone = [int(model(**tokenizer(text, return_tensors="pt")).logits.argmax()) for text in test.texts]
    right = sum(a == b for a, b in zip(alone, test.labels, strict=True))
    assert found == {"score": pytest.approx(right / 60), "n": 60}


def test_a_language_models_log_likelihood(lm_rows: Callable[[str], Artifact], stories: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from trimtune.study import language
    from trimtune.tasks import causal_lm

    rows = lm_rows("pairs")
    found = score_model(tmp_path, stories, rows.folder, "test", 128, "causal_lm", READING)
    inputs = causal_lm.inputs(causal_lm.load_tokenizer(stories), language.load(rows.folder).test, 128, **READING)
    model, total = AutoModelForCausalLM.from_pretrained(stories, dtype=torch.float32).eval(), 0.0
    for ids, target, count in zip(inputs.ids, inputs.targets, inputs.counts, strict=True):
        with torch.inference_mode():
            total -= float(model(input_ids=torch.tensor([ids]), labels=torch.tensor([target])).loss) * count
    assert found == {"score": pytest.approx(total / sum(inputs.counts), rel=1e-5), "n": sum(inputs.counts)}
    assert list(tmp_path.glob("*.safetensors")) == []


@pytest.mark.slow
def test_the_ledger_is_filled(store: Store, lm_rows: Callable[[str], Artifact], stories: Path) -> None:
    made = store.step("tune", "full", _copied, {"source": stories}, fresh=False)
    fit = SeedFit(seed=0, validation_score=-1.0, artifact=made.key)
    ledger = Search(method=Use(name="full"), trials_asked=1, trials=(), seeds_asked=2, learning_rate=1e-3, seconds=1.0,
                    seeds=(fit, fit.model_copy(update={"seed": 1, "artifact": "gone"})))
    found = score_seeds(ledger, lm_rows("pairs"), 128, "causal_lm", store, READING).seeds
    assert -12 < found[0].test_score < -0.5
    assert found[1].test_score is None


def _copied(folder: Path, source: Path) -> dict[str, str]:
    link_tree(source, folder)
    return {}
