import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from trimtune.tune import attention, softmax


def model_of(kind, **more):
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                                  intermediate_size=64, pad_token_id=0, **more)
    return AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").eval()


@pytest.mark.parametrize(("kind", "more"), [("bert", {}), ("llama", {"num_key_value_heads": 2})])
def test_a_model_answers_as_with_its_own_attention(kind, more):
    ids = torch.randint(1, 60, (2, 9), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(9) < torch.tensor([[9], [5]])).long()
    asked = {"input_ids": ids.masked_fill(mask == 0, 0), "attention_mask": mask}
    model = model_of(kind, **more)
    before = model(**asked).logits
    assert softmax.use(model)
    assert model.config._attn_implementation == softmax.NAME
    torch.testing.assert_close(model(**asked).logits, before)


def test_scores_that_are_capped_are_another_function_so_the_model_is_left_alone():
    model = model_of("gemma2", head_dim=8, num_key_value_heads=2, attn_logit_softcapping=0.05, query_pre_attn_scalar=1)
    tokens = {"input_ids": torch.arange(1, 10)[None]}
    before = model(**tokens).logits
    assert not softmax.use(model)
    assert model.config._attn_implementation == "eager"
    assert torch.equal(model(**tokens).logits, before)


def test_in_bf16_its_map_is_nearer_the_exact_one_than_eager():
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3, 25, 8).bfloat16() for _ in range(3)]
    mask = torch.zeros(2, 1, 25, 25)
    exact = attention.attend("eager", *(x.float() for x in inputs), mask)
    apart = {kind: (attention.attend(kind, *inputs, mask.bfloat16()).float() - exact).abs().mean()
             for kind in ("eager", softmax.NAME)}
    assert apart[softmax.NAME] < apart["eager"]
