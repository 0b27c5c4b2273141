"""A tuned language model from its folder: what it answers, and how it talks."""

import csv
import json
import subprocess
import sys
from typing import Any

import pytest
from tests.tasks import small_lm
from tests.tasks.test_causal_lm import CHATML

from trimtune import api
from trimtune.errors import TrimtuneError
from trimtune.ship import generator
from trimtune.ship.prompts import prompt_of
from trimtune.study.turns import Turn

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A prefix on a small model, tuned to answer prompts; its folder and metrics."""
    folder = tmp_path_factory.mktemp("tuned")
    small_lm.make(folder / "model")
    with (folder / "pairs.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "answer"])
        writer.writerows([text, text.upper()] for text in small_lm.texts()[:120])
    found = api.tune(folder / "pairs.csv", out=folder / "out", model=str(folder / "model"), method="prefix", task="causal-lm",
                     epochs=1, max_length=200, precision="fp32", data={"prompt": "question", "completion": "answer"})
    return folder / "out", found


def test_the_folder_says_what_was_tuned_and_how(tuned):
    folder, found = tuned
    assert 1 < found["perplexity"] < 600
    assert 1 < found["validation_perplexity"] < 600
    assert json.loads((folder / "rendering.json").read_text(encoding="utf-8"))["kind"] == "pairs"
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "AutoModelForCausalLM" in card
    assert f"Test perplexity {found['perplexity']:.4g}" in card


def test_the_cards_example_runs(tuned, monkeypatch):
    folder, _ = tuned
    monkeypatch.chdir(folder.parent)
    code = (folder / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    scope: dict[str, object] = {}
    exec(code, scope)
    assert isinstance(scope["answer"], str)


def test_answers_are_those_of_plain_transformers(tuned):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, _ = tuned
    prompts = small_lm.texts("test")[:3]
    answers = generator.load(folder)(prompts, max_new=12)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), str(folder / "adapter")).eval()
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([tokenizer(prompt + "\n", add_special_tokens=False)["input_ids"]])
        out = plain.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
        assert tokenizer.decode(out[0, ids.shape[1]:], skip_special_tokens=True).strip() == answer


def test_a_stream_says_the_same_piece_by_piece(tuned):
    model = generator.load(tuned[0])
    prompt = small_lm.texts("test")[0]
    pieces = list(model.stream((Turn("user", prompt),), max_new=20))
    assert len(pieces) > 1
    assert "".join(pieces).strip() == model([prompt], max_new=20)[0]


def test_a_pipe_is_answered_line_by_line(tuned):
    folder, _ = tuned
    prompts = small_lm.texts("test")[:2]
    command = [sys.executable, "-m", "trimtune", "chat", str(folder), "--max-new", "8"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, input="\n".join(prompts) + "\n")
    expected = generator.load(folder)(prompts, max_new=8)
    assert [line.strip() for line in done.stdout.splitlines() if line.strip()] == [one for one in expected if one]


def test_a_folder_without_a_language_model_is_refused(tmp_path):
    with pytest.raises(TrimtuneError, match="holds no language model"):
        generator.load(tmp_path)


def test_an_unknown_key_of_the_data_is_refused(tuned, tmp_path):
    with pytest.raises(TrimtuneError, match="promt"):
        api.tune("x.csv", out=tmp_path / "o", model=str(tuned[0]), method="lora", task="causal-lm", data={"promt": "question"})


def test_a_list_of_numbers_is_something_to_say():
    for said in ("[1, 2, 3]", "[]", '["a"]'):
        assert [turn.content for turn in prompt_of(said, "chat", "a prompt")] == [said]
    assert [turn.role for turn in prompt_of('[{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]', "chat",
                                            "a prompt")] == ["system", "user"]


def test_the_card_of_a_chat_model_asks_as_training_did(tmp_path, monkeypatch):
    small_lm.make(tmp_path / "model", "gpt2")
    (tmp_path / "chat.jinja").write_text(CHATML, encoding="utf-8")
    rows = [{"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": text.upper()}]}
            for text in small_lm.texts()[:60]]
    (tmp_path / "talks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    api.tune(tmp_path / "talks.jsonl", out=tmp_path / "out", model=str(tmp_path / "model"), method="lora", task="causal-lm",
             epochs=1, max_length=200, precision="fp32", data={"template": str(tmp_path / "chat.jinja")})
    monkeypatch.chdir(tmp_path)
    code = (tmp_path / "out" / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    scope: dict[str, Any] = {}
    exec(code, scope)
    asked = generator.load(tmp_path / "out")._rendering.asked((Turn("user", "a prompt"),))
    assert scope["inputs"]["input_ids"][0].tolist() == asked


def test_the_folder_of_the_base_is_only_read(tuned, tmp_path):
    """A folder that a fit wrote is the base of another one, with another way of asking."""
    base = tuned[0].parent / "again"
    small_lm.make(base)
    (base / "rendering.json").write_text('{"kind": "chat", "template": "x", "learned": "answers"}', encoding="utf-8")
    (base / "metrics.json").write_text("{}", encoding="utf-8")
    (base / "README.md").write_text("mine", encoding="utf-8")
    before = {path.name: path.read_bytes() for path in base.iterdir()}
    api.tune(tuned[0].parent / "pairs.csv", out=tmp_path / "out", model=str(base), method="full", task="causal-lm",
             epochs=1, max_length=200, precision="fp32", data={"prompt": "question", "completion": "answer"})
    assert {path.name: path.read_bytes() for path in base.iterdir()} == before
    assert json.loads((tmp_path / "out" / "rendering.json").read_text(encoding="utf-8"))["kind"] == "pairs"
