import itertools

import torch

from trimtune.tune.optimizer import CLIP_NORM, Masters, scale_at


def test_the_rate_warms_up_then_falls_to_zero():
    scales = [scale_at(step, 100) for step in range(100)]
    assert scales[0] < scales[5] == 1.0
    assert all(a > b for a, b in itertools.pairwise(scales[6:]))
    assert 0 < scales[-1] < 0.02


def test_masters_in_float32_equal_plain_adamw():
    torch.manual_seed(0)
    weight = torch.randn(8, 8)
    ours, plain = torch.nn.Parameter(weight.clone()), torch.nn.Parameter(weight.clone())
    masters = Masters([ours], [weight], 1e-2, steps=10)
    reference = torch.optim.AdamW([plain], lr=1e-2, weight_decay=0.01, fused=True)
    for step in range(10):
        gradient = torch.randn(8, 8)
        ours.grad, plain.grad = gradient.clone(), gradient.clone()
        torch.nn.utils.clip_grad_norm_([plain], CLIP_NORM)
        reference.param_groups[0]["lr"] = 1e-2 * scale_at(step, 10)
        reference.step()
        masters.step()
    assert torch.equal(ours, plain)


def test_bf16_weights_learn_steps_that_are_too_small_for_bf16():
    weight = torch.ones(4, 4)
    working = torch.nn.Parameter(weight.to(torch.bfloat16))
    masters = Masters([working], [weight], 1e-4, steps=1000)
    for _ in range(100):
        working.grad = torch.ones(4, 4, dtype=torch.bfloat16)
        masters.step()
    assert masters.masters[0].dtype == torch.float32
    assert (working < 1).all()  # a single step of 1e-4 is lost in bf16's eight bits; a hundred in a master are not


def test_pieces_of_a_batch_add_up_in_float32():
    """Gradients of 1 and 512 times 2⁻⁹: in bf16, with eight bits, the small ones would leave no trace."""
    working, piece = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16)), torch.full((4,), 2**-9, dtype=torch.bfloat16)
    masters = Masters([working], [torch.ones(4)], 1e-4, steps=10)
    for gradient in [torch.ones(4, dtype=torch.bfloat16), *[piece] * 512]:
        working.grad = gradient if working.grad is None else working.grad + gradient
        masters.gather()
    assert torch.equal(masters.masters[0].grad, torch.full((4,), 2.0))
    masters.step()
    assert masters.masters[0].grad is None
    assert working.grad is None
