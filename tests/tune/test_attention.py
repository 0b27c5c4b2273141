import pytest
import torch

from trimtune.store import Store
from trimtune.tune import attention


def test_all_kinds_are_the_same_function():
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3, 7, 8) for _ in range(3)]
    mask = torch.zeros(2, 1, 7, 7).masked_fill(torch.arange(7) > 4, torch.finfo(torch.float32).min)
    for kind in attention.KINDS[1:]:
        torch.testing.assert_close(attention.attend("eager", *inputs, mask), attention.attend(kind, *inputs, mask))


@pytest.mark.parametrize(("took", "chosen"), [
    ({"eager": 4.9, "sdpa": 4.8}, "eager"),
    ({"eager": 4.9, "sdpa": 2.6}, "eager"),
    ({"eager": 4.9, "sdpa": 2.4}, "sdpa"),
    ({"eager": 4.9, "sdpa": 60.0}, "eager"),
])
def test_what_is_near_is_not_chosen_by_the_moment(took, chosen):
    assert attention.choose(took, "eager") == chosen


def test_the_usual_one_on_a_cpu(monkeypatch):
    monkeypatch.setenv("TRIMTUNE_DEVICE", "cpu")
    assert [attention.usual(width, "bf16") for width in (20, 64, 600)] == ["eager_float32", "eager", "sdpa"]
    assert {attention.usual(width, "fp32") for width in (20, 64, 600)} == {"sdpa"}


@pytest.mark.slow
def test_all_are_timed_once_and_the_choice_is_kept(small, tmp_path):
    study, _, base, rows = small
    store = Store(tmp_path)
    chosen = attention.working_attention(study, "fp32", base, rows, store)
    (step,) = [one for one in store.steps if one.step == "attention"]
    facts = store.seen(step.key).facts
    assert facts["milliseconds"].keys() == {"eager", "sdpa"}
    assert min(facts["milliseconds"].values()) > 0
    assert chosen == facts["chosen"] == attention.choose(facts["milliseconds"], attention.usual(facts["width"], "fp32"))
    assert 5 < facts["width"] < 48
    assert attention.working_attention(study, "fp32", base, rows, store) == chosen
    assert len([one for one in store.steps if one.step == "attention"]) == 1


def test_long_rows_are_timed_a_few_at_a_time(small, monkeypatch):
    """32 rows × 12 heads × 4,000² would be 25 GB of one map in float32."""
    study, _, base, rows = small
    timed = []
    monkeypatch.setattr(attention.statistics, "fmean", lambda _: 4000.0)
    monkeypatch.setattr(attention, "milliseconds", lambda *shape: timed.append(shape) or {"eager": 2.0, "sdpa": 1.0})
    facts = attention.time_each(base.folder, base=base.folder, rows=rows.folder, task=study.task, batch_size=32, max_length=48,
                                precision_="fp32", reading={})
    assert (facts["width"], facts["rows"]) == (4000, 1)
    assert timed == [(1, 12, 4000, 32, "fp32")]


def test_the_timing_ends_in_time():
    import time

    started = time.perf_counter()
    attention.milliseconds(2, 2, 16, 8, "fp32", turns=10**6, seconds=0.05)
    assert time.perf_counter() - started < 5
