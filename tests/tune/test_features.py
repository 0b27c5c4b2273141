import pytest
import torch

from trimtune.tune import features


def test_one_rounding_of_a_large_logit_is_no_other_position():
    """Two kernels may round a bf16 logit of 8 apart by 2⁻⁵; the head reads the first position all the same."""
    head, x = torch.nn.Linear(2, 1, bias=False).bfloat16(), torch.tensor([[[8.0, 0.0], [1.0, 0.0]]]).bfloat16()
    head.weight.data = torch.tensor([[1.0, 0.0]]).bfloat16()
    mask, logits = torch.ones(1, 2, dtype=torch.long), torch.tensor([[8.0 + 2**-4]]).bfloat16()
    assert torch.equal(features._what_counts(head, x, logits, mask), x[:, :1])
    with pytest.raises(ValueError, match="more than one position"):
        features._what_counts(head, x, torch.tensor([[4.0]]).bfloat16(), mask)


@pytest.mark.slow
def test_a_head_on_stored_features_gives_the_whole_models_logits(small):
    from safetensors.torch import load_file

    from trimtune import parts
    from trimtune.records import Use
    from trimtune.study import data
    from trimtune.tune import fitting
    from trimtune.tune.feeds import token_feed

    study, store, base, rows = small
    head = parts.load("method", "head")
    shared = dict(task=study.task, batch_size=8, max_length=48, precision_="fp32")
    made = features.kept(Use(name="head", config=head.Config().model_dump()), study.task, shared, {}, base, rows, store, "")
    task, stored = parts.load("task", study.task), load_file(made.folder / features.FILE)
    model = fitting.prepared(task, head, head.Config(), base.folder, seed=0).eval()
    with torch.inference_mode():
        for name in ("train", "validation"):
            split = getattr(data.load(rows.folder), name)
            whole = token_feed(model, task, task.inputs(task.load_tokenizer(base.folder), split, 48))
            for start in range(0, len(split), 16):
                asked = list(range(start, min(start + 16, len(split))))
                found = features.logits_of(features.head_of(model), stored[name][asked])
                torch.testing.assert_close(found, whole.answered(asked)[0], rtol=1e-4, atol=1e-5)
