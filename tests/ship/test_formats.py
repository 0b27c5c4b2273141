"""Which candidate a format ships, and classifiers as plain folders."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.report import results
from tests.ship.conftest import tree

from trimtune.errors import TrimtuneError
from trimtune.ship import adapters, formats
from trimtune.ship import bundle as bundles
from trimtune.ship.prompts import prompt_of

LORA = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"], "base_model_name_or_path": "gpt2",
        "bias": "none"}


def test_every_format_of_an_engine_is_known_by_its_part() -> None:
    assert formats.written_by()["onnx"] == "onnx_runtime"
    assert formats.written_by()["openvino"] == "openvino_ir"


def test_an_engines_format_ships_the_same_method_and_trims() -> None:
    result = results.full()
    picked = next(row for row in result.rows if row.status == "measured" and row.candidate.engine.name == "torch_eager"
                  and not row.candidate.trims)
    _, row = formats.chosen("onnx", result, picked.name)
    assert row.candidate.engine.name == "onnx_runtime"
    assert (row.candidate.method, row.candidate.trims) == (picked.candidate.method, ())
    assert formats.chosen("onnx", result, row.name)[1] == row
    assert formats.chosen("bundle", result, picked.name)[1] == picked


def test_an_engine_that_was_not_measured_is_named() -> None:
    result = results.full()
    row = next(row for row in result.rows if row.status == "measured" and row.candidate.engine.name == "torch_eager")
    alone = result.model_copy(update={"rows": (row,)})
    with pytest.raises(TrimtuneError, match="written by the engine openvino_ir") as caught:
        formats.chosen("openvino", alone, row.name)
    assert "Add openvino_ir to the study's `engine`" in caught.value.do


@pytest.mark.parametrize(("change", "says"), [
    ({}, None), ({"peft_type": "IA3"}, "LoRA only"), ({"r": 0}, "lack r"), ({"bias": "all"}, "biases"),
    ({"use_dora": True}, "DoRA"), ({"modules_to_save": ["classifier"]}, "classifier")])
def test_what_vllm_takes(change: dict[str, object], says: str | None) -> None:
    found = adapters.vllm_lacks({**LORA, **change})
    assert found is None if says is None else says in str(found)


def test_a_rank_beyond_what_vllm_takes_unasked_is_asked_for() -> None:
    assert "--max-lora-rank" not in adapters.vllm_command("gpt2", "mine", "mine/", LORA)
    assert "--max-lora-rank 64" in adapters.vllm_command("gpt2", "mine", "mine/", {**LORA, "r": 64})


ASKED = [{"role": "user", "content": "Why?"}]


@pytest.mark.parametrize("given", [ASKED, [*ASKED, {"role": "assistant", "content": "So."}], [{"from": "human", "value": "Why?"}],
                                   '[{"role": "user", "content": "Why?"}]', "Why?"])
def test_conversations_are_asked_up_to_the_answer(given: object) -> None:
    assert prompt_of(given, "chat", "prompt 1") == (("user", "Why?"),)


def test_a_conversation_that_is_none_is_refused_with_its_place() -> None:
    with pytest.raises(TrimtuneError, match="prompt 7: turns 1 and 2 are both the user's"):
        prompt_of(ASKED * 2, "chat", "prompt 7")


@pytest.mark.slow
def test_a_classifier_as_plain_folders(finished: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trimtune import load
    from trimtune.study.model import locate

    monkeypatch.chdir(tmp_path)
    texts = ["a text", "another"]
    labels = [one.label for one in load(bundle)(texts)]
    for format_ in ("merged", "peft"):
        out = tmp_path / "small"
        found = bundles.ship(finished, out, format_=format_)
        assert found["parity"][0]["passed"]
        assert ("adapter_config.json" in tree(out), "config.json" in tree(out)) == (format_ == "peft", format_ == "merged")
        code = (out / "README.md").read_text().split("```python\n")[1].split("```")[0]
        scope: dict[str, object] = {}
        exec(code.replace("sentence-transformers/all-MiniLM-L6-v2", str(locate("minilm"))), scope)
        assert scope["answers"] == labels
        out.rename(tmp_path / format_)
