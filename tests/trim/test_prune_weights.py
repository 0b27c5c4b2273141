"""Pruning single weights: the right ones go, exactly so many, and they stay away whatever a fit does."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tests.engines.small_classifier import small_classifier

from trimtune import parts
from trimtune.errors import StepFailed, TrimtuneError
from trimtune.store import Store
from trimtune.tasks import text_classification as task
from trimtune.trim import _drawn, _gradual, _zeros, prune_weights
from trimtune.trim._model_folder import plain_state
from trimtune.tune import checkpoint
from trimtune.tune.recovery import Setting

NAME = "encoder.layer.1.attention.self.query"
CLOCK = {"train_seconds", "checkpoint_seconds", "seconds_to_99", "rows_per_s", "tokens_per_s"}


def matrices(folder: Path) -> dict[str, torch.Tensor]:
    """The weights that may go: of the blocks' linear layers."""
    from safetensors.torch import load_file

    state = load_file(folder / "model.safetensors")
    return {name: value for name, value in state.items() if ".encoder.layer." in name and value.ndim == 2}


def share_of_zeros(found: dict[str, torch.Tensor]) -> float:
    return sum(int((value == 0).sum()) for value in found.values()) / sum(value.numel() for value in found.values())


@pytest.fixture
def bert() -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(vocab_size=30522, hidden_size=32, num_attention_heads=4, num_hidden_layers=2,
                                                    intermediate_size=64, num_labels=12, initializer_range=0.3)).eval()


def test_many_go_early_and_the_last_stage_reaches_the_sparsity() -> None:
    shares = [_gradual.share_after(stage, 4, 0.8) for stage in (1, 2, 3, 4)]
    assert shares == pytest.approx([0.8 * 37 / 64, 0.8 * 7 / 8, 0.8 * 63 / 64, 0.8])


def test_the_lowest_go_and_exactly_so_many() -> None:
    torch.manual_seed(0)
    scores = [torch.rand(6, 8), 10 + torch.rand(4, 8)]
    one, other = _zeros.lowest(scores, 0.25, "model")
    assert (int(one.sum()), int(other.sum())) == (20, 0), "the second layer's scores are all higher"
    assert scores[0][one].max() < scores[0][~one].min()
    for score, gone in zip(scores, _zeros.lowest(scores, 0.25, "row"), strict=True):
        assert gone.sum(1).tolist() == [2] * len(score)
        assert all(score[row][gone[row]].max() < score[row][~gone[row]].min() for row in range(len(score)))
    for score, gone in zip(scores, _zeros.lowest(scores, 0.5, "2:4"), strict=True):
        fours, kept = score.view(-1, 4), ~gone.view(-1, 4)
        assert kept.sum(1).tolist() == [2] * len(fours)
        assert torch.equal(fours.masked_fill(~kept, 0).sum(1), fours.topk(2, dim=1).values.sum(1))


def test_what_is_zero_already_goes_first() -> None:
    layer = torch.nn.Linear(4, 1)
    layer.weight.data = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    (score,) = _zeros.scores(layer, {"": layer}, "magnitude", Path(), 0, None)
    assert score.tolist() == [[-1.0, 1.0, 2.0, 3.0]]


def test_wanda_counted_by_hand(bert: Any, tuned: Callable[[str], Path], helpdesk_rows: Path) -> None:
    source, setting = tuned("full"), Setting(helpdesk_rows, max_length=32, seed=3)
    found = _zeros.layers(bert)
    scores = dict(zip(found, _zeros.scores(bert, found, "wanda", source, 5, setting), strict=True))
    states: list[torch.Tensor] = []
    found[NAME].register_forward_hook(lambda _, inputs, __: states.append(inputs[0][0]))
    rows = _drawn.drawn(helpdesk_rows, 5, 3)
    for text in rows.texts:  # one at a time: nothing is padded
        inputs = task.encode(task.load_tokenizer(source), [text], 32)
        with torch.no_grad():
            bert(**{name: torch.from_numpy(values) for name, values in inputs.items()})
    norms = torch.cat(states).norm(dim=0)
    torch.testing.assert_close(scores[NAME], found[NAME].weight.detach().abs() * norms, rtol=1e-4, atol=1e-5)


def test_taylor_is_what_the_loss_would_change_by(bert: Any, tuned: Callable[[str], Path], helpdesk_rows: Path) -> None:
    """The square of it, to first order; here one row, and one weight made a little smaller and larger."""
    bert.double()
    found = _zeros.layers(bert)
    setting = Setting(helpdesk_rows, max_length=32, seed=3)
    scores = dict(zip(found, _zeros.scores(bert, found, "taylor", tuned("full"), 1, setting), strict=True))
    ((ids, targets),) = _drawn.of_equal_length(tuned("full"), setting, 1)
    labels = torch.tensor(targets)
    weight, step = found[NAME].weight, 1e-2
    row, column = divmod(int(scores[NAME].argmax()), 32)
    losses = []
    with torch.no_grad():
        for factor in (1 + step, (1 - step) / (1 + step)):
            weight[row, column] *= factor
            losses.append(task.loss(bert(input_ids=ids, attention_mask=torch.ones_like(ids)).logits, labels))
    change = float(losses[0] - losses[1]) / (2 * step)
    assert change**2 == pytest.approx(float(scores[NAME][row, column]), rel=1e-2)


def test_zeros_stay_whatever_is_learned(bert: Any) -> None:
    found = _zeros.layers(bert)
    gone = _zeros.lowest(_zeros.scores(bert, found, "magnitude", Path(), 0, None), 0.8, "model")
    _zeros.hold(found, gone)
    bert.requires_grad_(True)
    optimizer = torch.optim.AdamW(bert.parameters(), lr=0.1)
    for _ in range(3):
        bert(input_ids=torch.arange(12).view(2, 6)).logits.square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    _zeros.release(found)
    for layer, gone_NK in zip(found.values(), gone, strict=True):
        assert torch.equal(layer.weight == 0, gone_NK)
        assert not torch.signbit(layer.weight[gone_NK]).any(), "-0.0 would not be a zero in bits"
    assert _zeros.counted(found)["zeros"] == round(0.8 * _zeros.counted(found)["weights"])
    assert not any("parametrizations" in name for name in bert.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "config"), [
    ("full", {"criterion": "magnitude"}), ("lora", {"criterion": "wanda", "sparsity": 0.5}),
    ("prefix", {"criterion": "taylor", "sparsity": 0.7}), ("prompt", {"criterion": "wanda", "pattern": "2:4"}),
    ("full", {"criterion": "movement", "sparsity": 0.6})])
def test_the_wanted_share_is_zero_after_recovery(kind: str, config: dict[str, Any], tuned: Callable[[str], Path],
                                                 helpdesk_rows: Path, tmp_path: Path) -> None:
    source = tuned(kind) if kind == "full" else small_classifier(tmp_path / "source", kind, layers=2)
    out, layers = tmp_path / "out", 6 if kind == "full" else 2
    facts = prune_weights.run(out, source, {**config, "steps": 2, "epochs": 1, "rows": 32}, Setting(helpdesk_rows, max_length=16))
    wanted, found = config.get("sparsity", 0.5 if "pattern" in config else 0.8), matrices(out)
    assert len(found) == 6 * layers
    assert share_of_zeros(found) == pytest.approx(wanted, abs=1e-3 if config["criterion"] == "wanda" else 1e-5)
    assert facts["sparsity"] == pytest.approx(share_of_zeros(found), abs=1e-6)
    assert [stage["recovery"]["epochs_run"] for stage in facts["stages"]] == [1, 1]
    if config["criterion"] == "wanda":
        for value in found.values():
            zeros_N = (value == 0).sum(1)
            assert zeros_N.eq(round(wanted * value.shape[1])).all(), "the same count in every row"
    if "pattern" in config:
        assert all((value.view(-1, 4) == 0).sum(1).eq(2).all() for value in found.values())
    before = plain_state(task.load_model(source))
    assert any(not torch.equal(found[name][found[name] != 0], before[name][found[name] != 0]) for name in found), "they learned"


@pytest.mark.slow
def test_without_recovery_the_others_are_untouched(tuned: Callable[[str], Path], helpdesk_rows: Path, tmp_path: Path) -> None:
    prune_weights.run(tmp_path, tuned("full"), {"criterion": "magnitude", "sparsity": 0.3, "epochs": 0}, Setting(helpdesk_rows))
    before, after = matrices(tuned("full")), matrices(tmp_path)
    largest_gone = max(float(before[name][value == 0].abs().max()) for name, value in after.items())
    least_kept = min(float(value[value != 0].abs().min()) for value in after.values())
    assert largest_gone <= least_kept, "ranked over all layers"
    assert all(torch.equal(value, before[name].masked_fill(value == 0, 0)) for name, value in after.items())


def killed(folder: Path, *, trim: str = "prune_weights", **arguments: Any) -> dict[str, Any]:
    """Checkpoints at each step; killed by signal 9 in the second stage's second step (3 batches a pass)."""
    save, done = checkpoint.Checkpoints._save, [0]

    def saved(self: checkpoint.Checkpoints, *state: Any) -> None:
        if done[0] == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        save(self, *state)
        done[0] += 1

    os.environ["TRIMTUNE_CHECKPOINT_SECONDS"] = "0"
    checkpoint.Checkpoints._save = saved  # type: ignore[method-assign]
    return trimmed(folder, trim=trim, **arguments)


def trimmed(folder: Path, *, trim: str, **arguments: Any) -> dict[str, Any]:
    facts: dict[str, Any] = parts.load("trim", trim).run(folder, **arguments)
    return facts


def told(facts: dict[str, Any]) -> list[Any]:
    return [{name: value for name, value in stage["recovery"].items() if name not in CLOCK} for stage in facts["stages"]]


@pytest.mark.slow
@pytest.mark.parametrize("trim", ["prune_weights", "prune_ffn"])
def test_killed_in_its_second_stage_it_ends_with_the_same_bytes(trim: str, tuned: Callable[[str], Path], helpdesk_rows: Path,
                                                                tmp_path: Path) -> None:
    arguments = {"trim": trim, "source": tuned("full"), "config": {"epochs": 1, "rows": 32, "steps": 2},
                 "setting": Setting(helpdesk_rows, max_length=16, precision="fp32")}
    whole = Store(tmp_path / "whole").step("trim", trim, trimmed, arguments)
    with pytest.raises(StepFailed, match="killed"):
        Store(tmp_path / "killed").step("trim", trim, killed, arguments)
    left = tmp_path / "killed" / "checkpoints" / whole.folder.name
    assert sorted(path.name.split("-")[0] for path in left.iterdir()) == ["done", "stage"]
    events: list[dict[str, Any]] = []
    resumed = Store(tmp_path / "killed", events.append).step("trim", trim, trimmed, arguments)
    told_of = [event for event in events if event["kind"] == "resumed"]
    assert [event["text"] for event in told_of] == ["resumed after stage 1", "resumed at epoch 1, step 1 of 3"]
    assert told_of[1]["seconds"] > told_of[0]["seconds"], "the first stage's seconds count too"
    assert resumed.files == whole.files
    assert told(resumed.facts) == told(whole.facts)
    assert not left.exists()


def test_only_layers_inside_the_blocks_lose_weights(bert: Any) -> None:
    from transformers import DistilBertConfig, DistilBertForSequenceClassification, LlamaConfig, LlamaForSequenceClassification

    assert len(_zeros.layers(bert)) == 2 * 6
    assert not any("pooler" in name or "classifier" in name for name in _zeros.layers(bert))
    distil = DistilBertForSequenceClassification(DistilBertConfig(vocab_size=99, dim=32, n_heads=4, hidden_dim=64, n_layers=2))
    llama = LlamaForSequenceClassification(LlamaConfig(vocab_size=99, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
                                                       num_attention_heads=4))
    assert (len(_zeros.layers(distil)), len(_zeros.layers(llama))) == (12, 7)


def test_models_without_linear_layers_are_refused() -> None:
    from transformers import GPT2Config, GPT2ForSequenceClassification

    gpt2 = GPT2ForSequenceClassification(GPT2Config(vocab_size=99, n_embd=32, n_layer=1, n_head=4))
    with pytest.raises(TrimtuneError, match="no plain linear layers in its blocks"):
        _zeros.layers(gpt2)


def test_rows_that_are_no_fours_are_refused(bert: Any) -> None:
    bert.bert.encoder.layer[0].output.dense = torch.nn.Linear(62, 32)
    assert _zeros.layers(bert)
    with pytest.raises(TrimtuneError, match=r"layer\.0\.output\.dense has 62 inputs"):
        _zeros.layers(bert, "2:4")


def test_two_of_four_is_a_half() -> None:
    assert prune_weights.Config(pattern="2:4").sparsity == 0.5
    assert prune_weights.Config(**prune_weights.Config(pattern="2:4").model_dump()).sparsity == 0.5
    with pytest.raises(ValidationError, match=r"2:4 is a sparsity of 0\.5"):
        prune_weights.Config(pattern="2:4", sparsity=0.8)


def test_movement_follows_the_gradient_straight_through(bert: Any) -> None:
    """With plain gradient descent S is S₀ − Σ η W ∂L/∂W, whatever was gone meanwhile; what is zero already never comes back."""
    found = _zeros.layers(bert)
    first = next(iter(found.values()))
    first.weight.data[0] = 0
    start = _zeros.scores(bert, found, "movement", Path(), 0, None)
    assert (start[0][0] == -1).all()
    assert all(float(one.max()) == pytest.approx(1e-3) for one in start)
    _zeros.learn(found, start, 0.5, "layer")
    bert.requires_grad_(True)
    moving: Any = first.parametrizations["weight"]
    wanted_NK, rate = start[0].clone(), 0.1
    for _ in range(3):
        held_NK, seen = first.weight.detach().clone(), list[torch.Tensor]()

        def keep(_: Any, inputs: tuple[torch.Tensor, ...], out: torch.Tensor, seen: list[torch.Tensor] = seen) -> None:
            out.retain_grad()
            seen += [inputs[0].detach().flatten(0, -2), out]

        hook = first.register_forward_hook(keep)
        bert(input_ids=torch.arange(12).view(2, 6)).logits.square().sum().backward()
        hook.remove()
        assert seen[1].grad is not None
        wanted_NK -= rate * (seen[1].grad.flatten(0, -2).T @ seen[0]) * moving.original.detach()
        assert torch.equal(held_NK == 0, _zeros.lowest([moving[0].scores_NK.detach()], 0.5, "layer")[0])
        assert (moving.original.grad[held_NK == 0] == 0).all(), "what is gone does not learn, but its score does"
        with torch.no_grad():
            for parameter in bert.parameters():
                if parameter.grad is not None:
                    parameter -= rate * parameter.grad
                    parameter.grad = None
    torch.testing.assert_close(moving[0].scores_NK.detach(), wanted_NK, rtol=1e-4, atol=1e-6)
    assert not torch.equal(_zeros.lowest([moving[0].scores_NK.detach()], 0.5, "layer")[0],
                           _zeros.lowest([start[0]], 0.5, "layer")[0]), "weights went and came back"
    _zeros.release(found)
    assert all(float((layer.weight == 0).float().mean()) == pytest.approx(0.5, abs=0.01) for layer in found.values())
    assert (first.weight[0] == 0).all()
    assert not any("scores" in name for name in bert.state_dict())


def test_movement_needs_a_fit_to_learn_in() -> None:
    with pytest.raises(ValueError, match="learned in the recovery fits: leave epochs out"):
        prune_weights.Config(criterion="movement", epochs=0)
