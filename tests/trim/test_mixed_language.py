"""mixed on language models: the fragile layers keep more bits, perplexity holds the limit, and what is judged is what runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.trim import lm
from tests.trim.idle import idle

from trimtune.engines import torch_eager
from trimtune.engines._decoding import padded
from trimtune.errors import StepFailed
from trimtune.measure import _likelihood
from trimtune.study import language
from trimtune.tasks import causal_lm as task
from trimtune.tasks._perplexity import perplexity
from trimtune.trim import mixed
from trimtune.trim._judges import Risen, token_divergence

Tuned = Callable[[str], Path]
FRAGILE = "model.layers.1.self_attn.o_proj"


def with_outliers(source: Path, folder: Path) -> Path:
    """The same Llama with two values of an attention silenced, whose outgoing weights are then huge: no answer needs them, but
    they share their scales with weights that are needed. Two heads share a value, so four inputs are silent."""

    def change(name: str, tensor: torch.Tensor) -> None:
        if name == "model.layers.1.self_attn.v_proj.weight":
            tensor[[0, 16]] = 0
        elif name == FRAGILE + ".weight":
            tensor[:, [0, 8, 32, 40]] = 3.0

    return idle(source, folder, change)


def engine_perplexity(folder: Path, rows: Path) -> float:
    """Of the validation rows, as the loaded engine answers them."""
    tokenizer = task.load_tokenizer(folder)
    inputs = task.inputs(tokenizer, language.load(rows).validation, 48, **lm.READ)
    decoder: Any = torch_eager.load(folder, 1)
    nll = _likelihood.of(decoder, inputs.ids, inputs.targets, len(tokenizer), 16, 64.0)
    return perplexity(sum(nll) / sum(inputs.counts))


def test_the_damage_is_the_mean_divergence_of_tokens() -> None:
    torch.manual_seed(0)
    one, other, weight = torch.randn(300, 8), torch.randn(300, 8), torch.randn(40, 8)
    logs = [(states @ weight.t()).log_softmax(-1) for states in (one, other)]
    wanted = torch.nn.functional.kl_div(logs[1], logs[0], log_target=True, reduction="batchmean")
    assert token_divergence(one, other, weight) == pytest.approx(float(wanted), rel=1e-4)
    assert token_divergence(logs[0], logs[1], None) == pytest.approx(float(wanted), rel=1e-4)
    assert token_divergence(one, one, weight) == 0


def test_the_limit_of_a_language_model_is_a_rise_in_percent() -> None:
    risen = Risen(percent=1.5, perplexity=20.3, before=20.0, rows=32, tokens=900)
    assert risen.within(2)
    assert risen.within(1.5)
    assert not risen.within(1)
    assert risen.told(2) == "perplexity +1.50% as 32 validation rows tell, 2% allowed; 20 became 20.3"
    assert mixed.Config().limit is None


@pytest.mark.slow
def test_the_fragile_layer_keeps_more_bits(lm_tuned: Tuned, lm_rows: Path, tmp_path: Path) -> None:
    source, limit = with_outliers(lm_tuned("llama"), tmp_path / "source"), 3.0
    facts = mixed.run(tmp_path / "trim", source, mixed.Config(limit=limit).model_dump(), lm.setting(lm_rows))
    assert facts["met"]
    assert facts["uniform"]["percent"] > limit >= facts["lost"]["percent"]
    assert facts["kept"][0] == next(iter(facts["damage"])) == FRAGILE
    assert len(facts["kept"]) < len(facts["damage"])
    assert facts["lost"]["before"] == pytest.approx(lm.perplexity(source, lm_rows), rel=1e-4)
    named = json.loads((tmp_path / "trim" / "config.json").read_text())["trimtune_grid"]["formats"]
    assert named == facts["formats"]
    assert named[FRAGILE] == "int8"

    (tmp_path / "engine").mkdir()
    told = torch_eager.export(tmp_path / "engine", tmp_path / "trim", {}, "mixed", [], 48, "causal_lm")
    assert (told["packed"], told["precision"]) == ("packed", "int4+int8")
    assert told["bits_per_weight"] == facts["bits_per_weight"]
    assert told["difference"] < 1
    assert engine_perplexity(tmp_path / "engine", lm_rows) == pytest.approx(facts["lost"]["perplexity"], rel=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("config", "packed", "precision"), [
    ({"high": "float"}, "packed", "fp32+int4+int8"), ({"low": "ternary", "high": "float", "group": 32}, "stored", "fp32+int8")])
def test_transposed_layers_are_stored_and_answer_as_judged(config: dict[str, Any], packed: str, precision: str, lm_tuned: Tuned,
                                                           lm_rows: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    given = mixed.Config(limit=100, unit="block", rows=8, **config)
    facts = mixed.run(tmp_path / "trim", lm_tuned("gpt2"), given.model_dump(), lm.setting(lm_rows))
    assert (facts["kept"], facts["judged"], facts["damage_rows"], len(facts["damage"])) == ([], [0], 8, 3)
    assert facts["caveat"].startswith(f"{given.low} in every block is enough here (perplexity ")
    ids = torch.tensor([[5, 9, 11, 3]])
    with torch.inference_mode():
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / "trim")(ids).logits.numpy()
    (tmp_path / "engine").mkdir()
    told = torch_eager.export(tmp_path / "engine", tmp_path / "trim", {}, "mixed", [], 48, "causal_lm")
    assert (told["packed"], told["precision"], told["bits_per_weight"]) == (packed, precision, facts["bits_per_weight"])
    loaded: Any = torch_eager.load(tmp_path / "engine", 1)
    assert np.abs(loaded.logits(*padded(ids.tolist(), left=False)) - plain).mean() < 0.05 * plain.std()
    assert engine_perplexity(tmp_path / "engine", lm_rows) == pytest.approx(facts["lost"]["perplexity"], rel=2e-3)
    with pytest.raises(StepFailed, match=r"does not name the format of each linear layer"):
        torch_eager.export(tmp_path / "engine", lm_tuned("gpt2"), {}, "mixed", [], 48, "causal_lm")
