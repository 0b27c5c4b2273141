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


def test_without_gradients_each_chunk_is_one_product():
    from torch.utils._python_dispatch import TorchDispatchMode

    class Products(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.count += function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.matmul)
            return function(*args, **kwargs or {})

    hidden, weight, labels = tensors(False)
    products = Products()
    with torch.inference_mode(), products:
        chunked(hidden, weight, labels, rows=10)
    assert products.count == -(-int((labels != IGNORED).sum()) // 10)


def test_no_label_that_counts_gives_zero_and_no_nan():
    hidden, weight, _ = tensors(True)
    loss = chunked(hidden, weight, torch.full((50,), IGNORED))
    loss.backward()
    assert float(loss.detach()) == 0 and float(hidden.grad.abs().max()) == 0


def test_a_loss_with_a_teacher_in_chunks_is_the_plain_one() -> None:
    from trimtune.tasks import _chunked_teacher

    draw = torch.Generator().manual_seed(0)
    states, weight, wanted, theirs = (torch.randn(*shape, generator=draw) for shape in ((11, 6), (20, 6), (11, 8), (20, 8)))
    labels = torch.randint(0, 20, (11,), generator=draw)
    for student, teacher in (((states, weight), (wanted, theirs)), ((states @ weight.t(), None), (wanted @ theirs.t(), None))):
        found = []
        for loss_of, rows in ((_chunked_teacher.plain, {}), (_chunked_teacher.chunked, {"rows": 4})):
            learning = [one.clone().requires_grad_(True) for one in student if one is not None]
            loss = loss_of(learning[0], learning[1] if student[1] is not None else None, labels, *teacher, 0.3, 2.0, **rows)
            (3 * loss).backward()
            found.append((loss.detach(), *(one.grad for one in learning)))
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other)


def test_a_student_that_answers_as_its_teacher_learns_from_labels_alone() -> None:
    from trimtune.tasks import _chunked_teacher

    states, weight = torch.randn(5, 6), torch.randn(20, 6)
    labels = torch.arange(5)
    found = _chunked_teacher.chunked(states, weight, labels, states, weight, 0.4, 2.0)
    torch.testing.assert_close(found, 0.6 * torch.nn.functional.cross_entropy(states @ weight.t(), labels))
