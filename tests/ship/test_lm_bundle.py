"""A language model's bundle answers as the tuned model, from prompts, files and a talk; and as plain folders for others."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path

import pytest
from tests.ship import lm_run
from tests.ship.conftest import folder_of, result_of, tree

import trimtune
from trimtune.cli import main
from trimtune.errors import TrimtuneError
from trimtune.ship import bundle as bundles
from trimtune.ship import generator, manifest, stream
from trimtune.ship.generator import Generator

pytestmark = pytest.mark.slow
PROMPTS = [prompt for prompt, _ in lm_run.pairs()[:5]]
NEW = 6


@pytest.fixture(scope="module")
def model(lm_bundle: Path) -> Generator:
    return trimtune.load(lm_bundle)


@pytest.fixture(scope="module")
def answers(lm_finished: Path) -> list[str]:
    """What the tuned model itself answers."""
    tuned = folder_of(lm_finished, result_of(lm_finished).searches[0].seeds[0].artifact)
    return generator.load(tuned)(PROMPTS, max_new=NEW)


def test_it_holds_what_its_page_says(lm_bundle: Path, lm_finished: Path) -> None:
    found, names = manifest.check(lm_bundle), set(tree(lm_bundle))
    assert {"adapter/adapter_config.json", "model/rendering.json", "model/model.safetensors", "README.md"} <= names
    assert found["candidate"] == lm_run.name_of("lora")
    assert [hop["name"] for hop in found["parity"]] == ["tuned → merged", "tuned → plain peft", "model → engine",
                                                        "measured → bundle"]
    assert all(hop["passed"] for hop in found["parity"])
    assert found["parity"][-1]["rows"] == 7, "prompts; eight rows"
    assert found["rendering"]["kind"] == "pairs"
    assert re.fullmatch("[0-9a-f]{12}", found["rendering"]["template"])
    assert found["readings"]["perplexity"]["value"] == result_of(lm_finished).rows[0].value("perplexity")
    card = (lm_bundle / "README.md").read_text()
    for words in ("| perplexity |", "| measured → bundle |", "trimtune chat bundle/", found["rendering"]["template"],
                  "vllm serve stories260K --enable-lora --lora-modules mills=bundle/adapter"):
        assert words in card
    for name in names:
        if name.endswith((".json", ".md")):
            assert not re.search(r'"/(home|tmp|work|usr|root)/', (lm_bundle / name).read_text()), name


def test_the_adapters_settings_are_what_vllm_reads(lm_bundle: Path) -> None:
    config = json.loads((lm_bundle / "adapter" / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    assert isinstance(config["r"], int)
    assert all(isinstance(name, str) for name in config["target_modules"])
    assert config["base_model_name_or_path"] == "stories260K"


def test_it_answers_as_the_tuned_model_in_any_order(model: Generator, answers: list[str],
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(model, Generator)
    assert model(PROMPTS, max_new=NEW) == answers
    assert model(PROMPTS[::-1], max_new=NEW) == answers[::-1]
    assert len(set(answers)) > 1
    monkeypatch.setattr(generator, "CHUNK", 3)
    taken: list[str] = []
    found = model.answers((taken.append(prompt) or prompt for prompt in PROMPTS), NEW)
    assert (next(found), len(taken)) == (answers[0], 3), "a stream is answered as it comes"
    assert [*found] == answers[1:]


@pytest.mark.parametrize(("prompts", "says"), [
    ("bare", "One bare prompt"), (["fine", None], "prompt 2: column 'prompt' is empty"), ([["list"]], "prompt 1 is a list"),
    (["fine", "word " * 600], "prompt 2 has")])
def test_what_is_no_prompt_is_refused(model: Generator, prompts: object, says: str) -> None:
    with pytest.raises(TrimtuneError, match=says):
        model(prompts)


def test_a_changed_weight_is_refused(lm_bundle: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(lm_bundle, broken)
    with (broken / "model" / "model.safetensors").open("r+b") as file:
        file.seek(-5, 2)
        file.write(b"\x01")
    with pytest.raises(TrimtuneError, match=r"model/model\.safetensors was changed"):
        trimtune.load(broken)


def test_another_rendering_than_in_training_is_refused_even_with_new_hashes(lm_bundle: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(lm_bundle, broken)
    path = broken / "model" / "rendering.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "template": lm_run.TEMPLATE + " "}))
    manifest.write_manifest(broken, manifest.read_manifest(lm_bundle))
    with pytest.raises(TrimtuneError, match="render prompts differently than in training: template is"):
        trimtune.load(broken)


def test_a_file_keeps_its_columns(lm_bundle: Path, answers: list[str], tmp_path: Path,
                                  capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "prompts.csv", tmp_path / "answers.csv"
    with source.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("id", "mr", "answer"), *((index, prompt, "old") for index, prompt in enumerate(PROMPTS))])
    assert main(["predict", str(lm_bundle), "--file", str(source), "-o", str(out), "--max-new-tokens", str(NEW)]) == 0
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["predicted_answer"] for row in rows] == answers
    assert [(row["id"], row["answer"]) for row in rows] == [(str(index), "old") for index in range(5)]
    capsys.readouterr()
    assert main(["predict", str(lm_bundle), PROMPTS[0], "--format", "jsonl", "--max-new-tokens", str(NEW)]) == 0
    assert json.loads(capsys.readouterr().out) == {"text": PROMPTS[0], "answer": answers[0]}


def test_lines_and_json_lines(model: Generator, answers: list[str], tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS) + "\n", encoding="utf-8")
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"mr": prompt, "more": [1]}) + "\n" for prompt in PROMPTS))
    for name in ("prompts.txt", "prompts.jsonl"):
        source, out = stream.from_file(tmp_path / name, None, "mr"), io.StringIO()
        assert stream.write(stream.answered(model, source, NEW), source.columns, "jsonl", out) == 5
        rows = [json.loads(line) for line in out.getvalue().splitlines()]
        assert [row["answer"] for row in rows] == answers
    assert rows[0]["more"] == [1]


def test_a_talk_with_the_bundle(lm_bundle: Path, answers: list[str], monkeypatch: pytest.MonkeyPatch,
                                capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(PROMPTS[:2]) + "\n"))
    assert main(["chat", str(lm_bundle), "--max-new-tokens", str(NEW)]) == 0
    assert [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip()] == [one for one in answers[:2] if one]


def test_a_bundle_of_labels_is_no_partner_for_a_talk(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", str(bundle)]) == 2
    assert "answers with labels" in capsys.readouterr().err
    assert main(["predict", str(bundle), "hello", "--max-new-tokens", "5"]) == 2
    assert "--max-new-tokens 5" in capsys.readouterr().err


def test_virtual_tokens_and_rounded_weights_ship_too(lm_finished: Path, tmp_path: Path) -> None:
    prefix = bundles.ship(lm_finished, tmp_path / "prefix", lm_run.name_of("prefix"))
    assert [hop["name"] for hop in prefix["parity"]] == ["tuned → plain peft", "model → engine", "measured → bundle"]
    assert "vLLM can't serve this adapter: it serves LoRA only" in (tmp_path / "prefix" / "README.md").read_text()
    config = json.loads((tmp_path / "prefix" / "model" / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "stories260K"
    qlora = bundles.ship(lm_finished, tmp_path / "qlora", lm_run.name_of("qlora"))
    assert [hop["name"] for hop in qlora["parity"]] == ["tuned → merged", "model → engine", "measured → bundle"]
    assert qlora["adapter"] is None, "plain peft would put it on another base"
    full = bundles.ship(lm_finished, tmp_path / "full", lm_run.name_of("full"))
    assert [hop["name"] for hop in full["parity"]] == ["model → engine", "measured → bundle"]
    assert full["adapter"] is None
    assert 0 < full["parity"][0]["max_difference"]
    assert full["parity"][0]["allowed_relative"] == 0.02


@pytest.mark.parametrize("format_", ["peft", "merged"])
def test_a_plain_folder_answers_without_trimtune(format_: str, lm_finished: Path, shared_data: Path, answers: list[str],
                                                 tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stories260K").symlink_to(shared_data / "models" / "stories260K")
    assert main(["ship", str(lm_finished), "-o", "mills", "--format", format_, "--quiet"]) == 0
    assert f"Shipped the tuning of {lm_run.name_of('lora')} to mills as {format_}, " in capsys.readouterr().out
    names = set(tree(tmp_path / "mills"))
    assert {"README.md", "tokenizer.json", "chat_template.jinja"} <= names
    assert ("adapter_model.safetensors" in names, "model.safetensors" in names) == (format_ == "peft", format_ == "merged")
    assert not {"manifest.json", "engine.json"} & names
    card = (tmp_path / "mills" / "README.md").read_text()
    assert "perplexity" in card.split("## Proven")[1]
    assert ("vllm serve mills/" in card) == (format_ == "merged")
    code = card.split("```python\n")[1].split("```")[0].replace("a prompt", PROMPTS[0]).replace("=100", f"={NEW}")
    scope: dict[str, object] = {}
    exec(code, scope)
    assert str(scope["answer"]).strip() == answers[0]


def test_the_bundles_card_tells_how_peft_loads_it(lm_bundle: Path, shared_data: Path, answers: list[str], tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stories260K").symlink_to(shared_data / "models" / "stories260K")
    (tmp_path / "bundle").symlink_to(lm_bundle)
    code = (lm_bundle / "README.md").read_text().split("```python\n")[2].split("```")[0]
    scope: dict[str, object] = {}
    exec(code.replace("a prompt", PROMPTS[0]).replace("=100", f"={NEW}"), scope)
    assert str(scope["answer"]).strip() == answers[0]


@pytest.mark.parametrize(("kind", "format_", "says"), [
    ("full", "peft", "has no adapter"), ("qlora", "peft", "qlora changes the model's own weights"),
    ("prefix", "merged", "virtual tokens"),
    ("lora", "onnx", "the study measured no lora"), ("lora", "pickle", "unknown format 'pickle'")])
def test_a_format_that_cannot_be_is_refused_with_the_reason(kind: str, format_: str, says: str, lm_finished: Path,
                                                            tmp_path: Path) -> None:
    with pytest.raises(TrimtuneError, match=says) as caught:
        bundles.ship(lm_finished, tmp_path / "out", lm_run.name_of(kind), format_=format_)
    assert caught.value.allowed
    assert caught.value.do
    assert not list(tmp_path.iterdir())
