import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig

from trimtune.errors import StepFailed
from trimtune.tasks import text_classification as task
from trimtune.tune import batches, fitting, loop, memory
from trimtune.tune.feeds import Feed
from trimtune.tune.optimizer import Masters


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = BertConfig(vocab_size=500, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
                        hidden_dropout_prob=0, attention_probs_dropout_prob=0)
    return AutoModelForSequenceClassification.from_config(config)


def test_as_many_rows_as_fit_and_no_more(model):
    weights, one_row = memory.needed_mb(model, 1, 256, torch.float32)
    assert memory.rows_at_once(model, 32, 256, torch.float32, weights + 32.1 * one_row) == 32
    assert memory.rows_at_once(model, 32, 256, torch.float32, weights + 31.9 * one_row) == 16
    assert memory.rows_at_once(model, 33, 256, torch.float32, weights + 20 * one_row) == 17


def test_a_fit_that_cannot_fit_says_so_beforehand_and_what_would(model):
    with pytest.raises(StepFailed, match=r"out of memory, before it began.*needs about .* MB.*such as `lora`"):
        memory.rows_at_once(model, 32, 256, torch.float32, limit_mb=100)
    model.requires_grad_(False)
    with pytest.raises(StepFailed, match="smaller `max_length`"):
        memory.rows_at_once(model, 32, 256, torch.float32, limit_mb=100)


def test_virtual_tokens_are_rows_too(model):
    from peft import PromptTuningConfig, get_peft_model

    plain = memory.needed_mb(model, 1, 25, torch.float32)[1]
    prompted = get_peft_model(model, PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=75))
    assert memory.needed_mb(prompted, 1, 25, torch.float32)[1] == pytest.approx(memory.needed_mb(model, 1, 100, torch.float32)[1])
    assert memory.needed_mb(prompted, 1, 25, torch.float32)[1] > 4 * plain


def test_a_pass_without_gradients_holds_one_block_at_a_time(model):
    weights, recomputed = memory.needed_mb(model, 1, 256, torch.float32, recomputed=True)
    assert memory.rows_alone(model, 32, 256, torch.float32, weights + 32.1 * recomputed) == 32
    assert memory.rows_alone(model, 32, 256, torch.float32, weights + 9 * recomputed) == 8
    assert memory.rows_alone(model, 32, 256, torch.float32, 1.0) == 1, "no refusal: it is an estimate"
    assert not model.is_activation_checkpointing


def test_where_one_row_does_not_fit_blocks_are_recomputed(model):
    weights, one_row = memory.needed_mb(model, 1, 256, torch.float32)
    _, recomputed = memory.needed_mb(model, 1, 256, torch.float32, recomputed=True)
    assert recomputed < 0.6 * one_row  # of two blocks
    assert memory.rows_at_once(model, 32, 256, torch.float32, weights + 1.01 * one_row) == 1
    assert not model.is_activation_checkpointing
    assert memory.rows_at_once(model, 32, 256, torch.float32, weights + 0.99 * one_row) == 1
    assert model.is_activation_checkpointing


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora", "ia3", "prompt"])
def test_recomputed_blocks_give_the_same_gradients(method, small):
    """Of the real model, with the method's dropout: the random numbers are those of the first run."""
    from trimtune import parts
    from trimtune.tune.layers import layers_of
    from trimtune.tune.trainable import trained

    study, _, base, _ = small
    part, task = parts.load("method", method), parts.load("task", study.task)
    found = []
    for again in (False, True):
        model = fitting.prepared(task, part, part.Config(), base.folder, seed=0)
        if again:
            memory.recompute(model)
        fitting.set_seed(1)
        ids, runs = torch.arange(1000, 1024).view(2, 12), []
        layers_of(model)[1].attention.register_forward_hook(lambda *_, runs=runs: runs.append(1))
        model.train()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.square().sum().backward()
        assert len(runs) == (2 if again else 1)
        found.append({name: parameter.grad for name, parameter in trained(model).items()})
    assert any(gradient.abs().max() > 0 for gradient in found[0].values())
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.slow
def test_a_prefix_is_not_recomputed(small):
    from trimtune import parts

    study, _, base, _ = small
    part = parts.load("method", "prefix")
    model = fitting.prepared(parts.load("task", study.task), part, part.Config(), base.folder, seed=0)
    with pytest.raises(StepFailed, match="out of memory"):
        memory.rows_at_once(model, 32, 256, torch.float32, memory.needed_mb(model, 1, 256, torch.float32)[0] + 1)
    assert not model.is_activation_checkpointing


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [1, 3, 5])
def test_accumulated_gradients_equal_the_whole_batch(model, at_once):
    """Rows of unlike lengths: the mean over the rows, not the mean of the pieces' means."""
    draw = torch.Generator().manual_seed(1)
    lengths = [3, 9, 4, 12, 5, 7, 6]
    ids = [torch.randint(2, 500, (length,), generator=draw).tolist() for length in lengths]
    labels = torch.tensor([0, 1, 1, 0, 1, 0, 0])
    feed = Feed(lengths, lambda rows: (model(**batches.pad(ids, rows, 0)).logits, labels[rows]), [1] * 7)
    gradients = []

    class Watched(Masters):
        def step(self):
            gradients.append([parameter.grad.clone() for parameter in self.working])
            super().step()

    start = [parameter.detach().clone() for parameter in model.parameters()]
    for rows in (0, at_once):
        with torch.no_grad():
            for parameter, value in zip(model.parameters(), start, strict=True):
                parameter.copy_(value)
        watched = Watched(list(model.parameters()), start, 1e-3, 1)
        loop.train(model, watched, feed, feed, task.loss, task.score, epochs=1, batch_size=7, at_once=rows, seed=0)
    for whole, accumulated in zip(*gradients, strict=True):
        torch.testing.assert_close(accumulated, whole, rtol=1e-4, atol=1e-6)
