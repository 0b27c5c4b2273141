"""Balanced classes: the weights, the loss with them, and what they do for a rare class of real rows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import ROOT

from trimtune.tasks.text_classification import class_weights, loss


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60))
def test_the_mean_weight_is_one_and_each_class_weighs_alike(labels: list[int]) -> None:
    weights = class_weights("balanced", labels, 4)
    assert weights is not None
    each = weights[torch.tensor(labels)]
    totals = torch.zeros(4).index_add_(0, torch.tensor(labels), each)
    assert torch.allclose(totals[totals > 0], totals[totals > 0][0].expand((totals > 0).sum()))
    if (torch.bincount(torch.tensor(labels), minlength=len(weights)) > 0).all():
        assert each.mean() == pytest.approx(1)


def test_classes_of_one_size_have_the_loss_of_none() -> None:
    logits, labels = torch.randn(12, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2] * 4)
    assert class_weights("none", labels.tolist(), 3) is None
    weights = class_weights("balanced", labels.tolist(), 3)
    assert torch.equal(loss(logits, labels, weights), loss(logits, labels))
    assert torch.allclose(loss(logits, labels), torch.nn.functional.cross_entropy(logits, labels))


def test_a_rare_row_counts_for_as_many_as_its_class_is_rarer() -> None:
    logits = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 0, 0, 1])
    each = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    balanced = loss(logits, labels, class_weights("balanced", labels.tolist(), 2))
    assert balanced == pytest.approx(float(each[:3].mean() / 2 + each[3] / 2))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["head", "lora"])
def test_the_minority_class_is_found_more_often(method: str, small, tmp_path) -> None:  # type: ignore[no-untyped-def]
    import csv

    from trimtune import parts
    from trimtune.measure.quality import predict
    from trimtune.records import DataSpec, Use
    from trimtune.study import data
    from trimtune.study.stored import prepared
    from trimtune.tasks import text_classification as task
    from trimtune.tasks._base import base_of
    from trimtune.tune.fits import Fits

    study, store, _, _ = small
    counts = {"train": {"bug_report": 90, "integration_help": 9}, "validation": {"bug_report": 20, "integration_help": 20},
              "test": {"bug_report": 40, "integration_help": 40}}
    for split, wanted in counts.items():
        with (ROOT / "src/trimtune/data/helpdesk" / f"{split}.csv").open(encoding="utf-8", newline="") as file:
            rows_read = list(csv.DictReader(file))
        with (tmp_path / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            for name, count in wanted.items():
                writer.writerows([row["text"], name] for row in [row for row in rows_read if row["label"] == name][:count])
    recall = {}
    for kind in ("none", "balanced"):
        fit = study.fit.model_copy(update={"class_weights": kind, "epochs": 2 if method == "head" else 6})
        files = DataSpec(**{name: str(tmp_path / f"{name}.csv") for name in counts})
        asked = study.model_copy(update={"fit": fit, "data": files})
        rows, facts = prepared(asked, store)
        use = Use(name=method, config=parts.load("method", method).Config().model_dump())
        low, high = parts.load("method", method).LEARNING_RATES
        made = Fits(use, asked, base_of(asked, facts.labels, store), rows, store)((low * high) ** 0.5, 0)
        model, tokenizer = task.load_model(made.folder), task.load_tokenizer(made.folder)
        answers = predict(lambda texts: model(**{name: torch.from_numpy(value) for name, value in task.encode(  # noqa: B023
            tokenizer, texts, 48).items()}).logits.detach().numpy(), data.load(rows.folder).test.texts, 64)  # noqa: B023
        rare = facts.labels.index("integration_help")
        hits = [answer == rare for answer, label in zip(answers, rows.facts["test_labels"], strict=True) if label == rare]
        recall[kind] = sum(hits) / len(hits)
        assert made.config["class_weights"] == kind
    assert recall["balanced"] > recall["none"] + 0.2, recall
