"""A candidate whose layers have other shapes than its config says: the bundle ships and is proven, `merged` is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.ship.conftest import folder_of, result_of

from trimtune import load
from trimtune.engines._export import exported
from trimtune.errors import TrimtuneError
from trimtune.records import Candidate
from trimtune.ship import bundle as bundles
from trimtune.ship import parity
from trimtune.store import Store
from trimtune.study.uses import defaults
from trimtune.trim._chain import trimmed

pytestmark = pytest.mark.slow


@pytest.fixture
def cut_run(own_run: Path) -> tuple[Path, str]:
    """The small run with one more candidate, LoRA with half its heads, and that candidate's name."""
    result, store = result_of(own_run), Store(own_run.parent / ".store")
    first = result.rows[0]
    (heads,) = defaults("trim", ["prune_heads"])
    heads = heads.model_copy(update={"config": {**heads.config, "epochs": 0, "rows": 16, "scope": "model"}})
    candidate = Candidate(method=first.candidate.method, trims=(heads,), engine=first.candidate.engine)
    tuned = store.find(first.trimmed)
    assert tuned
    rows = next(one for key in tuned.parents if (one := store.find(key)) and one.step == "rows")
    model = trimmed(candidate.trims, tuned, rows, result.study, store)[-1]
    runnable = exported(candidate, model, rows, result.study, store)
    texts = [json.loads(line)["text"] for line in (rows.folder / "test.jsonl").open()]
    logits_NC = parity.engine_logits(runnable.folder, candidate.engine.name, result.study.task, texts, 48)
    row = first.model_copy(update={"candidate": candidate, "artifact": runnable.key, "trimmed": model.key})
    predictions = {**result.predictions, candidate.name: tuple(int(best) for best in logits_NC.argmax(-1))}
    changed = result.model_copy(update={"rows": (*result.rows, row), "predictions": predictions})
    (own_run / "result.json").write_text(changed.model_dump_json())
    return own_run, candidate.name


def test_the_bundle_ships_and_merged_says_why_not(cut_run: tuple[Path, str], tmp_path: Path) -> None:
    run, name = cut_run
    manifest = bundles.ship(run, tmp_path / "bundle", candidate=name)
    assert len(manifest["parity"]) == 5
    assert all(hop["passed"] for hop in manifest["parity"])
    assert json.loads((tmp_path / "bundle/model/config.json").read_text())["trimtune_shapes"] is True
    whole, cut = (path.stat().st_size for path in (folder_of(run, result_of(run).rows[0].artifact) / "model.safetensors",
                                                   tmp_path / "bundle/model/model.safetensors"))
    assert whole - cut > 6 * 4 * 384 * 192 * 4 * 0.99, "half of each attention's bytes are gone"
    assert load(tmp_path / "bundle")(["I was charged twice"])[0].label in manifest["labels"]
    with pytest.raises(TrimtuneError, match="merged: prune_heads.* leaves layers in shapes that no config") as caught:
        bundles.ship(run, tmp_path / "merged", candidate=name, format_="merged")
    assert "Take --format bundle" in caught.value.do
    assert not (tmp_path / "merged").exists()
