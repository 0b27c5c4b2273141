"""Distilling: a student of fewer layers, plain to any loader, that learns what its teacher answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trimtune import parts
from trimtune.errors import TrimtuneError
from trimtune.study import data
from trimtune.study.expand import expand
from trimtune.study.read import read
from trimtune.tasks import text_classification as task
from trimtune.trim import _student, distill, prune_vocabulary
from trimtune.trim._chain import refuse_lacking
from trimtune.tune import boundary, distilling
from trimtune.tune.recovery import Setting

TEXTS = ["I was charged twice this month", "can't sign in", "the export to our CRM fails since the last update, any idea?"]


def logits(module: Any, folder: Path, texts: list[str]) -> torch.Tensor:
    inputs = task.encode(task.load_tokenizer(folder), texts, 32)
    with torch.inference_mode():
        found: torch.Tensor = module(**{name: torch.from_numpy(values) for name, values in inputs.items()}).logits
        return found


def test_layers_are_evenly_spread_and_the_last_one_stays() -> None:
    assert _student.spread(6, 3) == [1, 3, 5]
    assert _student.spread(12, 4) == [2, 5, 8, 11]
    assert _student.spread(6, 4) == [0, 2, 3, 5]
    assert _student.spread(6, 1) == [5]
    with pytest.raises(TrimtuneError, match="The model has 6 layers"):
        _student.spread(6, 7)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "lora", "prefix", "prompt"])
def test_before_the_fit_it_answers_as_the_layers_that_it_kept(kind: str, tuned: Callable[[str], Path], helpdesk_rows: Path,
                                                             tmp_path: Path) -> None:
    """The reference: in the whole model, the layers that go hand on what they are given."""
    source = tuned(kind)
    facts = distill.run(tmp_path, source, {"layers": 2, "epochs": 0}, Setting(helpdesk_rows, max_length=32))
    assert (facts["kept"], facts["layers_before"], facts["layers"]) == ([2, 5], 6, 2)
    whole = task.load_model(source)
    for at, layer in enumerate(_student.layers(whole)):
        if at not in facts["kept"]:
            boundary.pass_by(layer)
    torch.testing.assert_close(logits(task.load_model(tmp_path), tmp_path, TEXTS), logits(whole, source, TEXTS))
    assert json.loads((tmp_path / "config.json").read_text())["num_hidden_layers"] == 2
    assert (tmp_path / "model.safetensors").stat().st_size < 0.7 * (source / "model.safetensors").stat().st_size
    assert (tmp_path / task.ADAPTER).is_dir() == (kind in ("prefix", "prompt"))
    if kind == "prefix":
        assert json.loads((tmp_path / task.ADAPTER / "adapter_config.json").read_text())["num_layers"] == 2


@pytest.mark.slow
def test_the_student_comes_to_answer_and_to_see_as_its_teacher(tuned: Callable[[str], Path], helpdesk_rows: Path,
                                                              tmp_path: Path) -> None:
    """Answers alone bring it to the teacher's answers; only states bring it to the teacher's states."""
    source = tuned("full")
    teacher, rows = task.load_model(source), answered_by(source, helpdesk_rows, tmp_path / "rows")
    wanted, apart, off = logits(teacher, source, rows.train.texts).log_softmax(-1), [], []
    for name, config in {"unfitted": {"epochs": 0}, "answers": {"states": 0}, "states": {"states": 3}}.items():
        distill.run(tmp_path / name, source, {"layers": 2, "epochs": 3, "learning_rate": 3e-4, "teacher": 1, **config},
                    Setting(tmp_path / "rows", max_length=16, batch_size=8, precision="fp32"))
        student = task.load_model(tmp_path / name)
        with distilling._watched(_student.layers(student)) as mine:
            found = logits(student, source, rows.train.texts).log_softmax(-1)
        with distilling._watched([_student.layers(teacher)[at] for at in (2, 5)]) as theirs:
            logits(teacher, source, rows.train.texts)
        apart.append(float((wanted.exp() * (wanted - found)).sum(-1).mean()))
        off.append(float(distilling.distance(mine[0], theirs[0], [1] * len(rows.train))))
    assert max(apart[1:]) < 0.8 * apart[0]
    assert off[2] < 0.8 * min(off[:2])


def study_of(folder: Path, given: str) -> Path:
    """A study that distills so."""
    study = folder / "study.yaml"
    study.write_text(f"name: s\ndata: helpdesk\ntune: [full]\ntrim: [{{distill: {{{given}}}}}]\nengine: [torch_eager]\n")
    return study


def answered_by(source: Path, rows_folder: Path, folder: Path) -> data.Rows:
    """The rows with this model's answers as labels: its head is random, so the true ones would lead elsewhere."""
    model, rows = task.load_model(source), data.load(rows_folder)
    train, validation = (data.Split(split.texts, logits(model, source, split.texts).argmax(-1).tolist())
                         for split in (rows.train, rows.validation))
    found = data.Rows(train, validation, rows.test, rows.facts)
    data.save(found, folder)
    return found


@pytest.mark.slow
def test_a_student_by_name_reads_with_its_own_tokenizer_and_learns_the_answers(
        tuned: Callable[[str], Path], helpdesk_rows: Path, tmp_path: Path) -> None:
    """The student numbers its tokens otherwise than its teacher, and has no head for these labels."""
    source, small, other = tuned("full"), tmp_path / "small", tmp_path / "other"
    setting = Setting(tmp_path / "rows", max_length=16, batch_size=8, precision="fp32")
    rows = answered_by(source, helpdesk_rows, tmp_path / "rows")
    distill.run(small, source, {"layers": 2, "epochs": 0}, setting)
    prune_vocabulary.run(other, small, {"keep": 100}, setting)
    task.describe_base(other, ["yes", "no"])
    wanted = logits(task.load_model(source), source, rows.train.texts).log_softmax(-1)
    apart = []
    for epochs in (0, 3):
        facts = distill.run(tmp_path / str(epochs), source, {"student": str(other), "epochs": epochs, "teacher": 1}, setting)
        found = logits(task.load_model(tmp_path / str(epochs)), tmp_path / str(epochs), rows.train.texts).log_softmax(-1)
        apart.append(float((wanted.exp() * (wanted - found)).sum(-1).mean()))
    assert facts["student"] == str(other)
    assert facts["parameters"] < facts["parameters_before"]
    assert task.load_tokenizer(tmp_path / "3").get_vocab() == task.load_tokenizer(other).get_vocab()
    assert json.loads((tmp_path / "3" / "config.json").read_text())["id2label"]["11"] == rows.facts.labels[11]
    assert apart[1] < 0.7 * apart[0]


def test_a_student_by_name_is_one_that_can_be_found(tmp_path: Path) -> None:
    study = study_of(tmp_path, "student: ./small")
    with pytest.raises(TrimtuneError, match=r"study.yaml:4: trim\[0\].distill.student: './small' is no folder, no hub id"):
        read(study)
    (tmp_path / "small").mkdir()
    use = read(study).trim[1][0]
    assert use.config["student"] == str(tmp_path / "small")
    assert use.label == "distill(student=./small)"
    study.write_text(study.read_text().replace("./small", "minilm, layers: 2"))
    with pytest.raises(TrimtuneError, match="student: minilm has its own layers"):
        read(study)
    with pytest.raises(TrimtuneError, match="student: minilm was given for the task causal_lm"):
        distill.run(tmp_path, tmp_path, {"student": "minilm"}, Setting(tmp_path, task="causal_lm"))


def test_a_student_that_can_not_be_had_is_told_before_anything_is_tuned(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    study = study_of(tmp_path, "student: ./small")
    with pytest.raises(TrimtuneError, match=r"trim distill\(student=./small\): model: the folder .*small has no config.json"):
        refuse_lacking(expand(read(study)), "text_classification")
    with pytest.raises(TrimtuneError, match="student: .* was given for the task causal_lm"):
        refuse_lacking(expand(read(study)), "causal_lm")
    study.write_text(study.read_text().replace("{student: ./small}", "{layers: 2}"))
    refuse_lacking(expand(read(study)), "text_classification")


@pytest.mark.slow
def test_it_can_be_narrower_too(tuned: Callable[[str], Path], helpdesk_rows: Path, tmp_path: Path) -> None:
    facts = distill.run(tmp_path, tuned("full"), {"layers": 6, "ffn": 0.5, "epochs": 0}, Setting(helpdesk_rows, max_length=32))
    assert (facts["width_before"], facts["width"], facts["layers"]) == (1536, 768, 6)
    assert facts["parameters_before"] - facts["parameters"] == 6 * 768 * (2 * 384 + 1)
    assert task.load_model(tmp_path).config.intermediate_size == 768  # type: ignore[union-attr]


@pytest.mark.slow
def test_more_texts_are_learned_from_but_no_test_row(tuned: Callable[[str], Path], helpdesk_rows: Path, tmp_path: Path) -> None:
    rows = data.load(helpdesk_rows)
    more = tmp_path / "more.txt"
    more.write_text("\n".join([*TEXTS, TEXTS[0].upper(), rows.test.texts[0], "", rows.train.texts[0]]) + "\n", encoding="utf-8")
    config = {"layers": 1, "epochs": 1, "unlabelled": str(more), "copies": 1}
    facts = distill.run(tmp_path / "out", tuned("full"), config, Setting(helpdesk_rows, max_length=16))
    long = sum(len(text.split()) > 1 for text in rows.train.texts)
    assert facts["texts"] == {"labelled": 96, "unlabelled": 3, "copies": long}
    assert facts["recovery"]["rows_per_s"] * facts["recovery"]["train_seconds"] == pytest.approx(96 + 3 + long)


@pytest.mark.slow
def test_a_file_of_texts_that_changed_is_another_step(tuned: Callable[[str], Path], tmp_path: Path) -> None:
    from trimtune.records import Artifact, DataSpec, Fit, Study, Use
    from trimtune.store import Store
    from trimtune.study.stored import prepared
    from trimtune.trim._chain import trimmed

    study = Study(name="s", model="minilm", task="text_classification", tune=(), trim=(), engine=(), fit=Fit(precision="fp32"),
                  data=DataSpec(train="helpdesk"))
    rows, _ = prepared(study, Store(tmp_path / "store"))
    more = tmp_path / "more.csv"
    config = distill.Config(layers=1, epochs=0, unlabelled=str(_written(more, ["one text"]))).model_dump()
    source = Artifact(key="0" * 64, step="tune", part="full", folder=tuned("full"))
    counts = []
    for texts in (["one text"], ["one text", "and a second one"], ["one text"]):
        _written(more, texts)
        links = trimmed([Use(name="distill", config=config)], source, rows, study, Store(tmp_path / "store"))
        counts.append((links[-1].facts["texts"]["unlabelled"], links[-1].reused))
    assert counts == [(1, False), (2, False), (1, True)]


def _written(path: Path, texts: list[str]) -> Path:
    path.write_text("\n".join(["number,text", *(f"{at},{text}" for at, text in enumerate(texts))]) + "\n", encoding="utf-8")
    return path


def test_a_study_names_the_file_from_its_own_folder(tmp_path: Path) -> None:
    study = study_of(tmp_path, "unlabelled: more.txt")
    with pytest.raises(TrimtuneError, match=r"study.yaml:4: trim\[0\].distill.unlabelled: no such file: .*more.txt"):
        read(study)
    (tmp_path / "more.txt").write_text("a text\n", encoding="utf-8")
    use = read(study).trim[1][0]
    assert use.config["unlabelled"] == str(tmp_path / "more.txt")
    assert use.label == "distill(unlabelled=more.txt)"
    study.write_text(study.read_text().replace("more.txt", "study.yaml"))
    with pytest.raises(TrimtuneError, match="has the ending '.yaml'"):
        read(study)


def test_what_has_no_teacher_takes_no_unlabelled_texts() -> None:
    with pytest.raises(ValueError, match="teacher, states or attention must be above 0"):
        distill.Config(copies=1, teacher=0, states=0)


@pytest.mark.slow
def test_a_student_as_large_as_its_teacher_is_refused(tuned: Callable[[str], Path], helpdesk_rows: Path, tmp_path: Path) -> None:
    with pytest.raises(TrimtuneError, match="allowed are 1 to 5, or 6 with ffn below 1"):
        distill.run(tmp_path, tuned("full"), {"layers": 6}, Setting(helpdesk_rows))


SMALL = {"vocab_size": 99, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "num_labels": 3}


@pytest.mark.parametrize("family", ["Roberta", "Electra", "MPNet", "DistilBert", "GPT2"])
def test_other_architectures_are_loaded_as_they_were_cut(family: str, tmp_path: Path) -> None:
    import transformers

    other = {"DistilBert": {"vocab_size": 99, "dim": 32, "n_heads": 4, "hidden_dim": 64, "n_layers": 4},
             "GPT2": {"vocab_size": 99, "n_embd": 32, "n_layer": 4, "n_head": 4, "pad_token_id": 0}}
    config = getattr(transformers, f"{family}Config")(**other.get(family, {**SMALL, "num_hidden_layers": 4}))
    model = getattr(transformers, f"{family}ForSequenceClassification")(config).eval()
    before = sum(parameter.numel() for parameter in model.parameters())
    _student.keep(model, [1, 3])
    model.save_pretrained(tmp_path)
    ids = torch.randint(5, 99, (2, 7))
    loaded: Any = task.load_model(tmp_path)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(input_ids=ids).logits, model(input_ids=ids).logits)
    assert sum(parameter.numel() for parameter in loaded.parameters()) < before


def test_layers_that_are_shared_or_unlike_are_refused() -> None:
    from transformers import (
        AlbertConfig,
        AlbertForSequenceClassification,
        ModernBertConfig,
        ModernBertForSequenceClassification,
    )

    albert = AlbertForSequenceClassification(AlbertConfig(num_hidden_layers=4, embedding_size=16, **SMALL))
    with pytest.raises(TrimtuneError, match="distill: AlbertForSequenceClassification has no list of 4 layers"):
        _student.keep(albert, [1, 3])
    modern = ModernBertForSequenceClassification(ModernBertConfig(num_hidden_layers=4, pad_token_id=0, **SMALL))
    with pytest.raises(TrimtuneError, match="can't be built with 2 of its 4 layers"):  # its first layer has one norm less
        _student.keep(modern, [1, 3])


@pytest.mark.slow
def test_int8_may_follow(tuned: Callable[[str], Path], helpdesk_rows: Path, tmp_path: Path) -> None:
    distill.run(tmp_path / "student", tuned("full"), {"epochs": 0}, Setting(helpdesk_rows, max_length=32))
    engine = parts.load("engine", "torch_eager")
    (tmp_path / "int8").mkdir()
    facts = engine.export(tmp_path / "int8", tmp_path / "student", {}, "int8", TEXTS, 32)
    assert facts["packed"] == "packed"
    inputs = task.encode(task.load_tokenizer(tmp_path / "int8"), TEXTS, 32)
    plain = logits(task.load_model(tmp_path / "student"), tmp_path / "student", TEXTS)
    found = torch.from_numpy(engine.load(tmp_path / "int8", 1)(inputs))
    assert (found - plain).abs().max() < 0.5 * plain.std()
