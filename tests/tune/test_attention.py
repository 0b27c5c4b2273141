import pytest
import torch

from trimtune.tune import attention


def test_all_kinds_are_the_same_function():
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3, 7, 8) for _ in range(3)]
    mask = torch.zeros(2, 1, 7, 7).masked_fill(torch.arange(7) > 4, torch.finfo(torch.float32).min)
    for kind in attention.KINDS[1:]:
        torch.testing.assert_close(attention.attend("eager", *inputs, mask), attention.attend(kind, *inputs, mask))


@pytest.mark.slow
def test_the_faster_one_is_chosen_and_kept(small):
    study, store, base, rows = small
    chosen = attention.working_attention(study, "fp32", base, rows, store)
    (step,) = [one for one in store.steps if one.step == "attention"]
    facts = store.seen(step.key).facts
    assert facts["milliseconds"][chosen] == min(facts["milliseconds"].values()) > 0
    assert 5 < facts["width"] < 48
    assert attention.working_attention(study, "fp32", base, rows, store) == chosen
    assert len([one for one in store.steps if one.step == "attention"]) == 1
