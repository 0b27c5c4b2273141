"""The loop by itself, on a model of a few numbers: what ends a fit, and what it keeps."""

import math
import statistics
from dataclasses import replace

import pytest
import torch

from trimtune.errors import StepFailed
from trimtune.tasks import text_classification as task
from trimtune.tune import batches, fitting, loop
from trimtune.tune.feeds import Feed
from trimtune.tune.optimizer import Masters


@pytest.fixture
def tiny():
    """A linear layer, 40 rows that it can tell apart, their feed and the sizes of the passes asked of it."""
    torch.manual_seed(0)
    model, x = torch.nn.Linear(4, 2), torch.randn(40, 4)
    labels, asked = (x[:, 0] > 0).long(), []

    def answered(rows):
        asked.append(len(rows))
        return model(x[list(rows)]), labels[list(rows)]

    return model, Feed([1] * 40, answered, [1] * 40), asked


def spoiled(feed, by):
    """The feed with its logits multiplied by what `by()` gives."""
    def answered(rows):
        logits, labels = feed.answered(rows)
        return logits * by(), labels

    return replace(feed, answered=answered)


def train(model, feed, rate=0.1, **options):
    masters = Masters(list(model.parameters()), list(model.parameters()), rate, 100)
    return loop.train(model, masters, feed, feed, task.loss, task.score, batch_size=8, seed=0, **options)


def test_a_fit_that_diverges_ends_with_its_best_epoch_so_far(tiny, monkeypatch):
    model, feed, _ = tiny
    feed_calls: list[int] = []
    feed = spoiled(feed, lambda: (feed_calls.append(1), math.nan if len(feed_calls) > 12 and model.training else 1.0)[1])
    told = []
    monkeypatch.setattr(loop, "emit", lambda kind, **fields: told.append((kind, fields["text"])))
    fitted = train(model, feed, epochs=9)
    assert ("warning", f"the fit diverged in epoch {len(fitted.curve) + 1}; its best epoch before counts") in told
    assert len(fitted.curve) == len(fitted.losses) < 9
    assert all(math.isfinite(loss) for loss in fitted.losses)
    assert all(torch.isfinite(value).all() for value in fitted.best)


def test_a_fit_without_one_sound_epoch_is_a_failure(tiny):
    model, feed, _ = tiny
    feed = spoiled(feed, lambda: math.nan)
    with pytest.raises(StepFailed, match=r"diverged: its loss is no number after epoch 1 at learning rate 0\.1"):
        train(model, feed, epochs=3)


def test_answers_that_are_no_numbers_are_no_score(tiny):
    """A loss may still be a number where the weights after the last step give none."""
    model, feed, _ = tiny
    feed = spoiled(feed, lambda: 1.0 if model.training else math.inf)
    with pytest.raises(StepFailed, match="its answers are no number after epoch 1"):
        train(model, feed, epochs=3)


def test_a_fit_pauses_where_it_is_told_to(tiny):
    model, feed, _ = tiny
    assert len(train(model, feed, epochs=3, until=2).curve) == 2


def test_rows_that_pass_in_pieces_are_validated_in_pieces(tiny):
    model, feed, asked = tiny
    train(model, feed, epochs=1)
    assert max(asked) == 16, "without a graph, two batches"
    asked.clear()
    train(model, feed, epochs=1, at_once=2)
    assert max(asked) == 2


@pytest.mark.slow
def test_batches_by_length_cost_no_quality(small, tmp_path, monkeypatch):
    """Three seeds each way, real rows: the means are within two standard errors of their difference, or 3 rows in 48."""
    study, _, base, rows = small
    config = dict(base=base.folder, rows=rows.folder, task=study.task, model_name="minilm", method="head", config={"passes": 1},
                  learning_rate=1e-2, epochs=3, batch_size=16, max_length=48, precision_="fp32")
    scores = {}
    for name, order in (("by length", batches.order), ("plain", batches.plain_order)):
        monkeypatch.setattr(batches, "order", order)
        scores[name] = []
        for seed in range(3):
            (tmp_path / f"{name}{seed}").mkdir()
            scores[name].append(fitting.fit(tmp_path / f"{name}{seed}", seed=seed, **config)["validation_score"])
    means = [statistics.fmean(found) for found in scores.values()]
    noise = 2 * math.sqrt(sum(map(statistics.variance, scores.values())) / 3)
    assert min(means) > 0.5
    assert abs(means[0] - means[1]) <= max(noise, 3 / 48)
