"""What a teacher adds to a fit: its own answers to the very rows that the student is asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from trimtune.study import data
from trimtune.tasks import text_classification as task
from trimtune.tune import distilling
from trimtune.tune.feeds import token_feeds
from trimtune.tune.recovery import Setting, recover

LOGITS, LABELS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3]]), torch.tensor([0, 2])
WANTED = torch.tensor([[1.0, 0.0, -1.0], [3.0, 0.0, 0.0]])


def test_the_loss_counted_by_hand() -> None:
    log, soft = (LOGITS / 2).log_softmax(-1), (WANTED / 2).softmax(-1)
    divergence = (soft * (soft.log() - log)).sum(-1).mean()
    expected = 0.75 * task.loss(LOGITS, LABELS) + 0.25 * 4 * divergence
    assert distilling.loss_of(task.loss, 0.25, 2.0)(LOGITS, LABELS, WANTED).item() == pytest.approx(expected.item())


def test_a_student_that_agrees_has_nothing_to_learn() -> None:
    logits = WANTED.clone().requires_grad_(True)
    loss = distilling.loss_of(task.loss, 1.0, 2.0)(logits, LABELS, WANTED)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-6


def test_a_row_without_a_label_counts_by_its_teacher_alone() -> None:
    half = distilling.loss_of(task.loss, 0.25, 2.0)
    one = [half(LOGITS[at:at + 1], LABELS[at:at + 1], WANTED[at:at + 1]).item() for at in range(2)]
    alone = distilling.loss_of(task.loss, 1.0, 2.0)(LOGITS[1:], LABELS[1:], WANTED[1:]).item() * 0.25
    both = half(LOGITS, torch.tensor([0, distilling.NO_LABEL]), WANTED)
    assert both.item() == pytest.approx((one[0] + alone) / 2)
    nobody = half(LOGITS[1:], torch.tensor([distilling.NO_LABEL]), WANTED[1:])
    assert nobody.item() == pytest.approx(alone)


def test_the_distance_of_states_counted_by_hand() -> None:
    torch.manual_seed(0)
    goals = torch.randn(2, 5, 4)
    states = goals + torch.randn(2, 5, 4)
    lengths = [5, 3]
    expected = [((states - goals)[row, :length].square().sum() / goals[row, :length].square().sum()).item()
                for row, length in enumerate(lengths)]
    assert distilling.distance(states, goals, lengths).item() == pytest.approx(sum(expected) / 2)
    virtual = [((states - goals)[row, :end].square().sum() / goals[row, :end].square().sum()).item()
               for row, end in enumerate((5, 4))]  # two virtual tokens before rows of 3 and 2
    assert distilling.distance(states, goals, [3, 2]).item() == pytest.approx(sum(virtual) / 2)
    first = ((states - goals)[:, 0].square().sum(-1) / goals[:, 0].square().sum(-1)).mean().item()
    assert distilling.distance(states[:, :1], goals, lengths).item() == pytest.approx(first)
    assert distilling.distance(goals, goals, lengths) == 0


@pytest.mark.slow
def test_the_teacher_beside_a_student_that_is_its_equal_is_at_no_distance(tuned: Callable[[str], Path],
                                                                          helpdesk_rows: Path) -> None:
    """Rows of other widths, virtual tokens and a narrowed last block; a student that was moved is away, and has gradients."""
    from trimtune.tune import first_token

    teacher, student = task.load_model(tuned("prompt")), task.load_model(tuned("prompt"), attention="eager")
    first_token.narrow(student)
    feeds = [token_feeds(model, task, tuned("prompt"), data.load(helpdesk_rows), 32)[0] for model in (student, teacher)]
    feed = distilling.beside(feeds[0], student, feeds[1], teacher, range(6))
    assert feed.answered([5, 0, 17])[-1].item() < 1e-9
    student.requires_grad_(True)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.01
    apart = feed.answered([5, 0, 17])[-1]
    apart.backward()
    assert apart.item() > 1e-4
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert any(parameter.grad is not None for parameter in student.parameters())


@pytest.mark.slow
def test_each_row_gets_its_own_answer(tuned: Callable[[str], Path], helpdesk_rows: Path) -> None:
    teacher = task.load_model(tuned("full"))
    feed, _ = token_feeds(teacher, task, tuned("full"), data.load(helpdesk_rows), 32)
    rows = [5, 0, 17]
    logits, labels, wanted = distilling.taught(feed, distilling.answers(feed)).answered(rows)
    torch.testing.assert_close(wanted, logits, atol=1e-4, rtol=1e-4)
    assert labels.tolist() == [data.load(helpdesk_rows).train.labels[row] for row in rows]


@pytest.mark.slow
def test_a_taught_student_comes_to_answer_as_its_teacher(tuned: Callable[[str], Path], helpdesk_rows: Path) -> None:
    """Its teacher has random answers, so the labels can't bring it there."""
    teacher, setting = task.load_model(tuned("full")), Setting(helpdesk_rows, max_length=32, precision="fp32")
    feed, _ = token_feeds(teacher, task, tuned("full"), data.load(helpdesk_rows), 32)
    wanted, apart = distilling.answers(feed).log_softmax(-1), []
    for share in (0.0, 1.0):
        student = task.load_model(tuned("lora"))
        recover(student, tuned("full"), setting, 3e-4, 2, teacher=teacher, share=share)
        found = distilling.answers(token_feeds(student, task, tuned("full"), data.load(helpdesk_rows), 32)[0]).log_softmax(-1)
        apart.append(float((wanted.exp() * (wanted - found)).sum(-1).mean()))
    assert apart[1] < 0.5 * apart[0]


@pytest.mark.slow
def test_a_language_models_teacher_says_the_same_kept_or_asked_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.tasks import small_lm
    from tests.trim import lm

    from trimtune.study import language
    from trimtune.tasks import causal_lm

    folder, rows = small_lm.make(tmp_path / "model"), language.load(lm.texts_folder(tmp_path / "texts", 24))
    student, teacher = (causal_lm.load_model(folder) for _ in range(2))
    for model in (student, teacher):
        causal_lm.split_off(model)
    feed, asked = (token_feeds(model, causal_lm, folder, rows, 48, lm.READ)[0] for model in (student, teacher))
    kept = distilling.told(feed, asked).answered([5, 0, 17])
    monkeypatch.setattr(distilling, "_KEPT_BYTES", 0)
    asked_anew = distilling.told(feed, asked).answered([5, 0, 17])
    assert len(kept[0]) == sum(feed.counts[row] for row in (5, 0, 17))
    torch.testing.assert_close(kept[3], kept[0], atol=1e-4, rtol=1e-4)
    for one, other in zip(kept, asked_anew, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(causal_lm.taught(0.5, 2.0)(*kept), 0.5 * causal_lm.loss(*kept[:3]), atol=1e-4, rtol=1e-4)
