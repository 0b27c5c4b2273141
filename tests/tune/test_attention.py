import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from trimtune.tune import attention


def test_all_kinds_are_the_same_function():
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3, 7, 8) for _ in range(3)]
    mask = torch.zeros(2, 1, 7, 7).masked_fill(torch.arange(7) > 4, torch.finfo(torch.float32).min)
    for kind in attention.KINDS[1:]:
        torch.testing.assert_close(attention.attend("eager", *inputs, mask), attention.attend(kind, *inputs, mask))


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_transformers_takes_the_float32_softmax_by_its_name(kind):
    attention.register()
    more = dict(num_key_value_heads=2) if kind == "llama" else {}
    config = AutoConfig.for_model(kind, vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                                  intermediate_size=64, pad_token_id=0, **more)
    ids, mask = torch.randint(1, 60, (2, 9)), (torch.arange(9) < torch.tensor([[9], [5]])).long()
    answers = []
    for name in ("eager", "eager_float32"):
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(config, attn_implementation=name).eval()
        answers.append(model(input_ids=ids.masked_fill(mask == 0, 0), attention_mask=mask).logits)
    torch.testing.assert_close(answers[1], answers[0])


def test_its_map_in_bf16_is_nearer_the_exact_one_than_eager():
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3, 25, 8).bfloat16() for _ in range(3)]
    mask = torch.zeros(2, 1, 25, 25)
    exact = attention.attend("eager", *(x.float() for x in inputs), mask)
    apart = {kind: (attention.attend(kind, *inputs, mask.bfloat16()).float() - exact).abs().mean()
             for kind in ("eager", "eager_float32")}
    assert apart["eager_float32"] < apart["eager"]


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
