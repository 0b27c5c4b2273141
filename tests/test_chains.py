"""`trim: auto`: what may stand in a chain, what is kept of those tried, and a whole search."""

from __future__ import annotations

import csv
from collections.abc import Callable
from math import exp
from pathlib import Path

import pytest

from tests.tasks.small_lm import make
from tests.trim import lm
from trimtune import chains, flow, parts
from trimtune.errors import TrimtuneError
from trimtune.measure._glance import Look
from trimtune.records import Auto, Candidate, Limit, Study
from trimtune.report import markdown, page
from trimtune.study import read, uses
from trimtune.study.document import Place

STUDY = {"name": "auto", "data": "helpdesk", "tune": ["head"], "trim": "auto", "engine": ["torch_eager"]}
SPOKEN = {"name": "auto", "task": "causal-lm", "data": "owner/rows", "tune": ["full"], "trim": "auto", "engine": ["torch_eager"]}


def seen(score: float, size_mb: float, ms: float) -> Look:
    return Look(score, size_mb, ms, {"size_mb": size_mb, "latency_p50_ms": ms})


PARENT = seen(0.86, 90.0, 10.0)
LOOKS = {"small": seen(0.856, 9.0, 6.0), "fast": seen(0.855, 20.0, 3.0), "best": seen(0.87, 40.0, 7.0),
         "near": seen(0.865, 38.0, 6.5),
         "bad": seen(0.5, 5.0, 2.0), "beaten": seen(0.84, 41.0, 8.0)}


def study(**changed: object) -> Study:
    return read.resolve({**STUDY, **changed}, "study", Path())


def spoken(**changed: object) -> Study:
    return read.resolve({**SPOKEN, **changed}, "study", Path())


def said(more: Callable[[int], float], size_mb: float = 1.0, ms: float = 1.0) -> Look:
    """A language model that loses `more(row)` nats per token, row by row of 40 whose 10 tokens cost 1 to 5 nats each."""
    rows = [(10 * (1 + row % 5 + more(row)), 10) for row in range(40)]
    score = -sum(nll for nll, _ in rows) / sum(tokens for _, tokens in rows)
    return Look(score, size_mb, ms, {"size_mb": size_mb, "tokens_per_s": 1000 / ms, "kv_cache_mb": size_mb / 10}, rows)


SAID = {"same": said(lambda row: 0.01 * (-1) ** row, 0.5, 0.8), "tiny": said(lambda _: 0.0005, 0.4, 0.9),
        "worse": said(lambda row: 0.02 + 0.001 * (row % 3), 0.1, 0.1), "best": said(lambda _: -1e-6, 0.9, 0.9)}


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


def test_rows_of_a_language_model_are_paired() -> None:
    """Rows differ by whole nats, so that the spread of scores alone would hide a loss of 0.02 nats on every row."""
    parent, alone = said(lambda _: 0.0), SAID["worse"]
    assert chains._error(alone) > 0.2
    assert chains._error(alone, parent) < 0.001
    assert chains.keep(SAID, parent, spoken(auto={"keep": 3}), 40) == ["best", "tiny", "same"], "smallest and fastest as good"
    assert chains.keep(SAID, parent, spoken(auto={"keep": 9}), 40) == ["best", "tiny", "same", "worse"]
    lone = {str(nats): Look(-nats, mb, mb, {}, [(10 * nats, 10)]) for nats, mb in ((1.0, 9.0), (2.0, 8.0), (3.0, 1.0))}
    assert chains.keep(lone, lone["1.0"], spoken(auto={"keep": 2}), 1) == ["1.0", "3.0"], "a single prompt tells nothing"


@pytest.mark.parametrize(("limit", "left"), [
    ({"perplexity": "<= parent + 1%"}, {"same", "tiny", "best"}), ({"perplexity": "<= parent + 0.1"}, {"same", "tiny", "best"}),
    ({"perplexity": "<= parent + 3%"}, set(SAID)), ({"perplexity": "<= 19"}, set(SAID)), ({"perplexity": "<= 8"}, set()),
    ({"size_mb": "<= 0.45"}, {"tiny", "worse"}), ({"kv_cache_mb": "<= 0.045"}, {"tiny", "worse"}),
    ({"tokens_per_s": ">= 1300"}, {"same", "worse"}), ({"tokens_per_s": ">= 1400"}, {"worse"})])
def test_limits_of_language_models_are_foreseen(limit: dict[str, str], left: set[str]) -> None:
    """Perplexity 20.1 of the parent, its rows spread widely: 19 may be chance, 8 can't; a rate may miss its limit by a tenth."""
    assert {*chains.keep(SAID, said(lambda _: 0.0), spoken(require=limit, auto={"keep": 9}), 40)} == left


def test_language_models_have_chains_of_their_own() -> None:
    asked = spoken(engine=["onnx_runtime"])
    links, formats = chains.space(Candidate(method=asked.tune[0], trims=(), engine=asked.engine[0]), asked.task)
    assert [options[1].name for options in links if options[1]] == ["distill", "prune_heads", "prune_ffn", "low_rank"]
    assert {use.name for use in formats if use} == {"int4", "int8"}


def test_a_task_without_such_trims_is_not_searched() -> None:
    with pytest.raises(TrimtuneError, match="can't search for the task images: no trim"):
        uses.searched("auto", "images", Place("study"))


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
    ({"trim": [["auto", "int8"]]}, "auto")])
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


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch_eager", "onnx_runtime"])
def test_a_search_of_a_language_model_measures_what_it_kept(engine: str, tmp_path: Path) -> None:
    if parts.load("engine", engine).available():
        pytest.skip(f"{engine} is not here")
    lm.texts_folder(tmp_path / "texts")
    files = {split: str(tmp_path / "texts" / f"{split}-given.jsonl") for split in ("train", "validation", "test")}
    asked = read.resolve({**SPOKEN, "model": str(make(tmp_path / "gpt2", "gpt2")), "data": files, "engine": [engine],
                          "fit": {"epochs": 1, "max_length": 48}, "budget": {"trials": 1, "seeds": 1},
                          "auto": {"tries": 2, "keep": 1}, "require": {"size_mb": "<= 0.6"}}, "study", tmp_path)
    result = flow.run(asked, tmp_path / "runs")
    (search,) = result.chains
    first, *tries = search.tries
    assert (first.trims, len(tries), search.timed) == ("none", 2, "next token")
    assert all((each.size_mb and each.ms and each.score is not None) or each.words for each in tries)
    (kept,) = [each for each in tries if each.kept]
    row = next(row for row in result.rows if row.candidate.trims_label == kept.trims)
    assert row.value("size_mb") == pytest.approx(kept.size_mb)
    table = markdown.text(result, tmp_path).split("## Chains tried for")[1]
    assert "perplexity, validation rows" in table
    assert "next token, roughly" in table
    assert f"{exp(-(kept.score or 0)):.1f}"[:3] in table
    assert "Next token, roughly" in page.html(result, tmp_path)
