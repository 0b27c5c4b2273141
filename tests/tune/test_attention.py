import pytest
import torch

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
def test_all_are_timed_once_and_the_choice_is_kept(small):
    study, store, base, rows = small
    chosen = attention.working_attention(study, "fp32", base, rows, store)
    (step,) = [one for one in store.steps if one.step == "attention"]
    facts = store.seen(step.key).facts
    assert facts["milliseconds"].keys() == {"eager", "sdpa"}
    assert min(facts["milliseconds"].values()) > 0
    assert chosen == facts["chosen"] == attention.choose(facts["milliseconds"], attention.usual(facts["width"], "fp32"))
    assert 5 < facts["width"] < 48
    assert attention.working_attention(study, "fp32", base, rows, store) == chosen
    assert len([one for one in store.steps if one.step == "attention"]) == 1
