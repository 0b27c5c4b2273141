"""`trim: auto`: what may stand in a chain, what is kept of those tried, and a whole search."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from trimtune import chains, flow
from trimtune.errors import TrimtuneError
from trimtune.measure._glance import Look
from trimtune.records import Auto, Candidate, Limit, Study
from trimtune.report import markdown, page
from trimtune.study import read

STUDY = {"name": "auto", "data": "helpdesk", "tune": ["head"], "trim": "auto", "engine": ["torch_eager"]}
PARENT = Look(0.86, 90.0, 10.0)
LOOKS = {"small": Look(0.856, 9.0, 6.0), "fast": Look(0.855, 20.0, 3.0), "best": Look(0.87, 40.0, 7.0),
         "near": Look(0.865, 38.0, 6.5),
         "bad": Look(0.5, 5.0, 2.0), "beaten": Look(0.84, 41.0, 8.0)}


def study(**changed: object) -> Study:
    return read.resolve({**STUDY, **changed}, "study", Path())


def test_the_best_the_smallest_and_the_fastest_that_are_as_good_are_kept() -> None:
    assert chains.keep(LOOKS, PARENT, study(auto={"keep": 3}), 400) == ["best", "small", "fast"]
    assert chains.keep(LOOKS, PARENT, study(auto={"keep": 1}), 400) == ["best"]
    assert chains.keep(LOOKS, PARENT, study(auto={"keep": 9}), 400) == ["best", "small", "fast", "near", "bad"]


def test_rows_enough_to_tell_a_loss_leave_no_room_for_it() -> None:
    assert chains.keep(LOOKS, PARENT, study(auto={"keep": 2}), 1_000_000) == ["best", "near"], "small is surely worse"


def test_what_is_outside_the_limits_is_not_kept() -> None:
    asked = study(require={"size_mb": "<= 10"}, auto={"keep": 5})
    assert chains.keep(LOOKS, PARENT, asked, 400) == ["small", "bad"]
    assert chains.keep(LOOKS, PARENT, study(require={"size_mb": "<= 1"}), 400) == []
    rough = asked.model_copy(update={"require": (Limit(reading="latency_p50_ms", op="<=", value=2.9),)})
    assert "fast" in chains.keep(LOOKS, PARENT, rough, 400), "3.0 ms, roughly timed, may be 2.9"


def test_links_stand_in_an_order_that_every_study_may_name() -> None:
    asked = study()
    plain = Candidate(method=asked.tune[0], trims=(), engine=asked.engine[0])
    links, formats = chains.space(plain, asked.task)
    names = [options[1].name for options in links if options[1]]
    assert names.index("prune_vocabulary") < names.index("distill") < names.index("prune_ffn")
    assert {use.name for use in formats if use} >= {"int8", "ternary"}
    whole = [{use.name: use.given} for use in [*(options[-1] for options in links), formats[-1]] if use]
    assert study(trim=[whole]).trim[1], "the longest chain is one that a study may ask for"
    onnx = plain.model_copy(update={"engine": study(engine=["onnx_runtime"]).engine[0]})
    assert "ternary" not in {use.name for use in chains.space(onnx, asked.task)[1] if use}, "that engine doesn't have it"


def test_auto_stands_alone_or_in_the_list() -> None:
    assert study().auto == Auto()
    assert study().trim == ((),)
    both = study(trim=["none", "int8", "auto"], auto={"tries": 4})
    assert both.auto == Auto(tries=4)
    assert len(both.trim) == 2
    assert study(trim=["int8"]).auto is None


@pytest.mark.parametrize(("changed", "word"), [
    ({"auto": {"tries": 0}}, "tries"), ({"auto": {"trys": 3}}, "trys"), ({"trim": ["int8"], "auto": {"tries": 3}}, "no search"),
    ({"trim": [["auto", "int8"]]}, "auto"), ({"task": "causal-lm", "tune": ["lora"]}, "causal_lm")])
def test_a_bad_search_is_refused(changed: dict[str, object], word: str) -> None:
    with pytest.raises(TrimtuneError, match=word):
        study(**changed)


def test_what_the_study_skips_is_not_searched(tmp_path: Path) -> None:
    from trimtune.store import Store

    asked = study(tune=["head", "full"], skip=["full*"])
    base = Store(tmp_path).step("data", "rows", lambda folder: {}, {}, fresh=False)
    assert chains.search(asked, {}, base, Store(tmp_path)) == ([], ()), "of a method that is skipped nothing was tuned"


@pytest.mark.slow
def test_a_search_measures_what_it_kept(tmp_path: Path, helpdesk_rows: Path) -> None:
    from trimtune.study import data

    kept = data.load(helpdesk_rows)
    for split in ("train", "validation", "test"):
        with (tmp_path / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            rows = getattr(kept, split)
            labels = (kept.facts.labels[at] for at in rows.labels)
            csv.writer(file).writerows([("text", "label"), *zip(rows.texts, labels, strict=True)])
    files = {split: f"{split}.csv" for split in ("train", "validation", "test")}
    asked = read.resolve({**STUDY, "data": files, "fit": {"epochs": 2, "max_length": 32}, "budget": {"trials": 1, "seeds": 1},
                          "auto": {"tries": 3, "keep": 1}, "require": {"size_mb": "<= 60"}}, "study", tmp_path)
    result = flow.run(asked, tmp_path / "runs")
    tries = result.chains[0].tries
    assert [tries[0].trims, len(tries)] == ["none", 4]
    assert all(each.score is not None or each.words for each in tries)
    assert all(each.score is None for each in tries if each.size_mb and each.size_mb > 60 and each.trims != "none"), \
        "none that is too large was fitted"
    names = [each.trims for each in tries if each.kept]
    assert len(names) == 1
    assert {row.candidate.trims_label for row in result.rows} == {"none", *names}
    row = next(row for row in result.rows if row.candidate.trims_label == names[0])
    assert row.status == "measured"
    assert row.value("size_mb") == pytest.approx(next(each.size_mb for each in tries if each.kept))
    assert names[0] in markdown.text(result, tmp_path).split("## Chains tried for")[1]
    assert "Chains tried for" in page.html(result, tmp_path)
    again = flow.run(asked, tmp_path / "runs")
    assert again.chains == result.chains
    assert all(step.reused for step in again.steps if step.step in ("trim", "engine", "glance")), "nothing is tried twice"
