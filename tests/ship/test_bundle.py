"""A bundle moves, answers as what was measured, replaces only itself, and is refused when one byte is wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.ship.conftest import result_of, tree

from trimtune import load
from trimtune.errors import TrimtuneError
from trimtune.ship import bundle as bundles
from trimtune.ship.manifest import read_manifest, write_manifest

pytestmark = pytest.mark.slow


def test_it_holds_what_its_page_says(bundle: Path, finished: Path) -> None:
    manifest, names = bundles.check(bundle), set(tree(bundle))
    assert {"manifest.json", "README.md", "adapter/adapter_config.json", "adapter/adapter_model.safetensors"} <= names
    assert set(manifest["files"]) == names - {"manifest.json"}
    assert not [name for name in names if name.endswith((".pkl", ".pt", ".pth", ".bin"))]
    assert manifest["candidate"] == result_of(finished).choice.picked
    hops = ["tuned → merged", "tuned → plain peft", "model → engine", "model → engine, padded", "measured → bundle"]
    assert [hop["name"] for hop in manifest["parity"]] == hops
    assert all(hop["passed"] for hop in manifest["parity"])
    assert [hop["rows"] for hop in manifest["parity"]] == [60, 60, 60, 30, 60]
    assert manifest["readings"]["accuracy"]["n"] == 60
    card = (bundle / "README.md").read_text()
    assert all(f"`{label}`" in card for label in manifest["labels"])
    assert "| accuracy |" in card
    assert "measured → bundle" in card


def test_no_path_of_the_machine_is_shipped(bundle: Path, finished: Path) -> None:
    for name in tree(bundle):
        if name.endswith((".json", ".md")):
            text = (bundle / name).read_text()
            assert str(finished.parent) not in text
            assert str(Path.home()) not in text or str(Path.home()) == "/"
            assert not re.search(r'"/(home|tmp|work|usr|root)/', text), name


def test_moved_to_another_place_it_answers_as_measured(bundle: Path, finished: Path, tmp_path: Path) -> None:
    moved = tmp_path / "else where"
    shutil.copytree(bundle, moved)
    result = result_of(finished)
    texts = [json.loads(line)["text"] for line in next((finished.parent / ".store").glob("rows-*/test.jsonl")).open()]
    code = ("import json, sys, trimtune\nmodel = trimtune.load(sys.argv[1])\n"
            "print(json.dumps([[one.label, one.probability] for one in model(json.load(sys.stdin))]))")
    shown = subprocess.run([sys.executable, "-c", code, str(moved)], input=json.dumps(texts), capture_output=True, text=True,
                           check=True, cwd=tmp_path).stdout
    answers = json.loads(shown.splitlines()[-1])
    measured = result.predictions[result.choice.picked or ""]
    assert [label for label, _ in answers] == [result.data.labels[index] for index in measured]
    here = load(bundle)(texts)
    assert np.allclose([probability for _, probability in answers], [one.probability for one in here], atol=1e-4)


def test_any_flipped_byte_of_any_file_is_refused(bundle: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(bundle, broken)
    for name, size in tree(bundle).items():
        for at in {0, size // 2, size - 1}:
            with (broken / name).open("r+b") as file:
                file.seek(at)
                byte = file.read(1)[0]
                file.seek(at)
                file.write(bytes([byte ^ 1]))
            with pytest.raises(TrimtuneError, match=re.escape(name)) as caught:
                load(broken)
            assert caught.value.allowed
            assert caught.value.do
            with (broken / name).open("r+b") as file:
                file.seek(at)
                file.write(bytes([byte]))
    bundles.check(broken)


def test_any_byte_of_the_manifest_counts(bundle: Path, tmp_path: Path) -> None:
    content = (bundle / "manifest.json").read_bytes()
    for at in range(0, len(content), 11):
        (tmp_path / "manifest.json").write_bytes(content[:at] + bytes([content[at] ^ (1 << at % 8)]) + content[at + 1:])
        with pytest.raises(TrimtuneError):
            read_manifest(tmp_path)


def test_missing_and_added_files_are_refused_hidden_ones_let_be(bundle: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(bundle, broken)
    (broken / ".DS_Store").write_text("x")
    bundles.check(broken)
    (broken / "model" / "added_tokens.json").write_text("{}")
    with pytest.raises(TrimtuneError, match=r"model/added_tokens\.json was added"):
        bundles.check(broken)
    (broken / "model" / "added_tokens.json").unlink()
    (broken / "README.md").unlink()
    with pytest.raises(TrimtuneError, match=r"README\.md is missing"):
        bundles.check(broken)


def test_it_is_independent_of_the_store(bundle: Path) -> None:
    assert all((bundle / name).stat().st_nlink == 1 for name in tree(bundle))


def test_only_an_untouched_bundle_is_replaced(bundle: Path, own_run: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(TrimtuneError, match="isn't empty and is no bundle"):
        bundles.ship(own_run, mine)
    assert tree(mine) == {"thesis.txt": 13}

    noted = tmp_path / "noted"
    shutil.copytree(bundle, noted)
    (noted / ".git").mkdir()
    (noted / ".git" / "HEAD").write_text("ref")
    before = tree(noted)
    with pytest.raises(TrimtuneError, match=r"\.git/HEAD"):
        bundles.ship(own_run, noted)
    assert tree(noted) == before

    (noted / ".git" / "HEAD").unlink()
    (noted / ".git").rmdir()
    manifest = bundles.ship(own_run, noted, candidate=result_of(own_run).rows[1].name)
    assert manifest["numerics"] == "int8"
    assert bundles.check(noted) == manifest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "noted", "runs"]


@pytest.mark.parametrize(("candidate", "says"), [("lora@torch-eager", "unknown candidate"), ("nothing", "unknown candidate")])
def test_a_wrong_candidate_is_named(finished: Path, tmp_path: Path, candidate: str, says: str) -> None:
    with pytest.raises(TrimtuneError, match=says) as caught:
        bundles.ship(finished, tmp_path / "out", candidate)
    assert "lora" in caught.value.allowed
    assert not (tmp_path / "out").exists()


def test_the_adapter_answers_in_plain_peft_and_transformers(bundle: Path, finished: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from trimtune.study.model import locate
    from trimtune.tasks.text_classification import load_model

    result = result_of(finished)
    base = locate("minilm")
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(result.data.labels))
    plain = PeftModel.from_pretrained(model, bundle / "adapter").eval()
    tokens = AutoTokenizer.from_pretrained(base)(["my invoice is wrong", "can't sign in", ""], padding=True, return_tensors="pt")
    inputs = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    tuned = load_model(next((finished.parent / ".store").glob(f"*-{result.searches[0].seeds[0].artifact[:16]}")), merge=False)
    with torch.inference_mode():
        assert torch.allclose(plain(**inputs).logits, tuned(**inputs).logits, atol=1e-5)
        assert plain(**inputs).logits.std() > 0.01


def test_what_killed_ships_left_is_swept_and_a_bundle_moved_aside_comes_back(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for name in (f".out.{dead.pid}.new", f".out.{dead.pid}.new.abc.logits", f".out.{dead.pid}.old", f".out.{os.getpid()}.new",
                 f".other.{dead.pid}.new", ".out.notes"):
        (tmp_path / name).mkdir()
    (tmp_path / f".out.{dead.pid}.old" / "kept").touch()
    bundles._sweep(tmp_path / "out")
    assert (tmp_path / "out" / "kept").is_file()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"out", f".out.{os.getpid()}.new", f".other.{dead.pid}.new", ".out.notes"}


def test_it_answers_with_the_threads_that_were_measured(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its notes say, where the machine has so many cores; what the caller says in any case."""
    import torch

    moved, before = tmp_path / "bundle", torch.get_num_threads()
    shutil.copytree(bundle, moved)
    notes = json.loads((moved / "model" / "engine.json").read_text())
    (moved / "model" / "engine.json").write_text(json.dumps({**notes, "threads": 2}))
    write_manifest(moved, {key: found for key, found in read_manifest(bundle).items() if key not in ("files", "sha256")})
    try:
        for cores, asked, used in ((4, None, 2), (2, None, 2), (1, None, 1), (4, 3, 3)):
            monkeypatch.setattr(bundles, "threads", lambda cores=cores: cores)
            load(moved, asked)
            assert torch.get_num_threads() == used
    finally:
        torch.set_num_threads(before)


def test_its_manifest_and_page_say_the_threads(own_run: Path, tmp_path: Path) -> None:
    result = result_of(own_run)
    folder = next((own_run.parent / ".store").glob(f"engine-*-{result.row(result.choice.picked or '').artifact[:16]}"))
    record = json.loads((folder / "artifact.json").read_text())
    record["facts"] |= {"threads": 1, "threads_ms": {"1": 2.5, "2": 3.5}}
    (folder / "artifact.json").write_text(json.dumps(record))
    manifest = bundles.ship(own_run, tmp_path / "bundle")
    assert (manifest["engine"]["threads"], manifest["engine"]["threads_ms"]) == (1, {"1": 2.5, "2": 3.5})
    assert "answers with 1 thread," in (tmp_path / "bundle" / "README.md").read_text()
