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
