import copy

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from trimtune.tune.optimizer import Masters
from trimtune.tune.trainable import trained
from trimtune.tune.vocabulary import narrow

USED = [2, 3, 7, 11, 12, 40, 41]


def model_of(kind="bert", **more):
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                                  intermediate_size=64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **more)
    return AutoModelForSequenceClassification.from_config(config).train()


def fit(model, steps=20):
    parameters = list(trained(model).values())
    masters = Masters(parameters, [parameter.detach().clone() for parameter in parameters], 5e-3, steps)
    draw = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(steps):
        ids = torch.tensor(USED)[torch.randint(len(USED), (4, 6), generator=draw)]
        mask = torch.ones_like(ids)
        ids[0, 4:], mask[0, 4:] = 0, 0
        loss = torch.nn.functional.cross_entropy(model(input_ids=ids, attention_mask=mask).logits, ids[:, 0] % 2)
        loss.backward()
        masters.step()
        losses.append(loss.item())
    return masters, losses


@pytest.mark.slow
def test_a_fit_of_the_cut_table_is_that_of_the_whole_one():
    whole = model_of()
    cut, name = copy.deepcopy(whole), "bert.embeddings.word_embeddings.weight"
    table = narrow(cut, USED)
    assert table.name == name
    assert cut.get_submodule("bert.embeddings.word_embeddings").weight.shape == (len(USED) + 1, 32)  # and the padding's row
    (masters, losses), (_, reference) = fit(cut), fit(whole)
    assert losses == pytest.approx(reference, abs=1e-5)
    assert reference[-1] < reference[0]
    learned = dict(trained(cut))
    learned[name] = table.full(learned[name], masters.decay(20))
    for each, value in trained(whole).items():
        torch.testing.assert_close(learned[each], value, rtol=1e-4, atol=1e-5, msg=each)


@pytest.mark.slow
def test_rows_that_never_come_decay_as_adamw_lets_them():
    whole = model_of()
    cut, before = copy.deepcopy(whole), whole.bert.embeddings.word_embeddings.weight.detach().clone()
    table = narrow(cut, USED)
    masters, _ = fit(cut)
    fit(whole)
    after = table.full(cut.bert.embeddings.word_embeddings.weight.detach(), masters.decay(20))
    reference = whole.bert.embeddings.word_embeddings.weight.detach()
    unused = [row for row in range(60) if row not in USED and row]
    torch.testing.assert_close(after[unused], reference[unused], rtol=1e-6, atol=0)
    assert ((reference[unused] / before[unused] - 1).abs() > 1e-4).all(), "the decay is larger than what is tolerated"


def test_a_token_that_was_not_announced_is_an_error():
    model = model_of()
    narrow(model, USED)
    with pytest.raises(IndexError):
        model(input_ids=torch.tensor([[2, 50]]))


def test_the_whole_embedding_comes_back():
    model = model_of().eval()
    ids = torch.tensor([[2, 50, 7]])
    before = model(input_ids=ids).logits
    narrow(model, USED).undo()
    assert torch.equal(model(input_ids=ids).logits, before)
    assert model.get_input_embeddings().weight.requires_grad


def test_a_frozen_or_wholly_used_embedding_is_left_alone():
    model = model_of()
    assert narrow(model, range(60)) is None
    model.get_input_embeddings().weight.requires_grad_(False)
    assert narrow(model, USED) is None


def test_an_embedding_that_the_output_shares_is_left_alone():
    from transformers import AutoModelForMaskedLM

    config = AutoConfig.for_model("bert", vocab_size=60, hidden_size=32, num_hidden_layers=1, num_attention_heads=4,
                                  intermediate_size=64)
    model = AutoModelForMaskedLM.from_config(config)
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert narrow(model, USED) is None
