import pytest
import torch

from trimtune.tasks._chunked_loss import IGNORED, chunked, plain


def tensors(frozen_weight):
    torch.manual_seed(0)
    hidden = torch.randn(50, 16, requires_grad=True)
    weight = torch.randn(300, 16, requires_grad=not frozen_weight)
    labels = torch.randint(300, (50,))
    labels[::7] = IGNORED
    return hidden, weight, labels


@pytest.mark.parametrize("frozen_weight", [True, False])
@pytest.mark.parametrize("rows", [1, 16, 1000])
def test_chunked_loss_and_gradients_equal_the_plain_ones(frozen_weight, rows):
    found = []
    for loss_of in (plain, lambda *given: chunked(*given, rows=rows)):
        hidden, weight, labels = tensors(frozen_weight)
        loss = loss_of(hidden, weight, labels)
        (3 * loss).backward()
        found.append([loss, hidden.grad] + ([] if frozen_weight else [weight.grad]))
    for ours, reference in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-6)
    assert found[1][1][::7].abs().max() == 0  # ignored tokens get no gradient


def test_no_label_that_counts_gives_zero_and_no_nan():
    hidden, weight, _ = tensors(True)
    loss = chunked(hidden, weight, torch.full((50,), IGNORED))
    loss.backward()
    assert float(loss.detach()) == 0 and float(hidden.grad.abs().max()) == 0
