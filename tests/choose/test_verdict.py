"""Verdicts of rows made by hand; 400 test rows, of which the parent answers 380."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.choose.candidates import TRUTH, failed, predictions, right, row, turns

from trimtune.choose.choose import choose
from trimtune.results import Baseline, Row, Turns, Verdict

PARENT = "full@onnx_runtime"
MAJORITY = Baseline(name="majority", title="Majority class", predictions=right(40))
TFIDF = Baseline(name="tfidf", title="TF-IDF", predictions=right(379))


def judged(rows: Sequence[Row], *counts: int, times: dict[str, Turns] | None = None, **more: Any) -> dict[str, list[Verdict]]:
    """Candidate → its verdicts; `counts` are the rows that each measured one has right."""
    measured = [each for each in rows if each.status == "measured"]
    choice = choose(rows, predictions(measured, *counts), TRUTH, [], "quality", (MAJORITY, TFIDF), by_round=times, **more)
    return {each.name: [verdict for verdict in choice.verdicts if verdict.candidate == each.name] for each in rows}


def test_smaller_and_faster_with_quality_tied_is_a_gain() -> None:
    rows = [row("full"), row("full", "int8", ms=6, mb=23)]
    times = {rows[0].name: turns(10, [1.0, 1.3, 2.0, 1.0, 1.1, 1.0]), rows[1].name: turns(6, [1.0, 1.25, 2.1, 1.02, 1.1, 0.98])}
    [found] = judged(rows, 380, 379, times=times)["full+int8@onnx_runtime"]
    assert (found.kind, found.against) == ("gain", PARENT)
    assert found.words.startswith("3.9× smaller, 1.7× faster (1.")
    assert found.words.endswith("accuracy tied (−0.2 points, −1.2 to 0.7)") or "accuracy tied (−0.2 points" in found.words
    assert judged(rows, 380, 379)[PARENT] == [], "what isn't trimmed has no verdict"


def test_smaller_for_a_loss_that_is_shown_is_a_trade_with_its_price() -> None:
    rows = [row("full"), row("full", "int8", ms=6, mb=23)]
    [found] = judged(rows, 380, 350)["full+int8@onnx_runtime"]
    assert found.kind == "trade"
    assert "accuracy −7.5 points (−1" in found.words
    assert str(found).startswith("trade: 3.9× smaller, 1.7× faster, ")


def test_smaller_but_slower_says_both() -> None:
    rows = [row("full"), row("full", "int8", ms=12, mb=23)]
    [found] = judged(rows, 380, 380)["full+int8@onnx_runtime"]
    assert found.kind == "gain"
    assert found.words.startswith("3.9× smaller, but 1.2× slower, accuracy tied")


def test_neither_smaller_nor_faster_is_no_gain_with_the_cause_where_it_is_known() -> None:
    def no_gain(own: dict[str, Any], parent: dict[str, Any], flags: list[str]) -> str:
        rows = [row("full", **parent), row("full", "int8", ms=10.1, mb=90.2, **own)]
        [found] = judged(rows, 380, 390, machine={"flags": flags})["full+int8@onnx_runtime"]
        assert found.kind == "no gain here", "better answers alone are no gain of trimming"
        assert found.words.startswith("as large, as fast, as far as their intervals tell, accuracy +2.5 points (")
        return found.words.partition("; ")[2]

    int8 = {"numerics": "int8", "precision": "int8"}
    assert no_gain(int8, {}, ["avx2"]) == "this CPU has no int8 products"
    assert no_gain(int8, {"precision": "bf16"}, ["avx512_vnni"]) == "the engine already runs bf16"
    assert no_gain({"numerics": "ternary", "precision": "fp32"}, {}, []) == "weights are unpacked to run"
    assert no_gain({"caveats": ("no kernel uses the zeros",)}, {}, []) == "no kernel uses the zeros"
    assert no_gain({"caveats": ("same",)}, {"caveats": ("same",)}, []) == "", "its parent has that too"
    assert no_gain(int8, {}, ["avx512_vnni"]) == "", "nothing is said that isn't known"
    assert no_gain({"precision": "fp32"}, {"precision": "bf16"}, []) == "it runs fp32, its parent bf16", "the engine chose so"
    assert no_gain({}, {}, []) == ""


def test_a_simulated_candidate_has_no_gain_whatever_its_figures_say() -> None:
    rows = [row("full"), row("full", "sparse", ms=1, mb=1, packed="simulated"), row("full", "sparse+int8", ms=5)]
    found = judged(rows, 380, 380, 380)
    assert [one.kind for one in found["full+sparse@onnx_runtime"]] == ["no gain here"]
    assert "smaller" not in found["full+sparse@onnx_runtime"][0].words
    assert [one.against for one in found["full+sparse+int8@onnx_runtime"]] == [PARENT], "what is real isn't held against it"


def test_a_failure_or_chance_is_unsafe() -> None:
    rows = [row("full"), row("full", "int8", ms=5, mb=23), failed("full", "|Δlogit| 3.2 > 0.25", "prune_ffn")]
    found = judged(rows, 380, 41)
    [chance], [broken] = found["full+int8@onnx_runtime"], found["full+prune_ffn@onnx_runtime"]
    assert (chance.kind, chance.against) == ("unsafe", PARENT)
    assert chance.words == "10.2% of 400 test rows right, no better than Majority class (10.0% of 400 test rows right)"
    assert (broken.kind, broken.words) == ("unsafe", "it failed: |Δlogit| 3.2 > 0.25")


def test_a_chain_is_judged_against_each_of_its_beginnings() -> None:
    rows = [row("full"), row("full", "prune_ffn", ms=7, mb=70), row("full", "prune_ffn+int8", ms=4, mb=18),
            row("full", "prune_ffn+int8", engine="openvino_ir"), row("lora")]
    found = judged(rows, 380, 380, 380, 380, 380)
    assert [one.against for one in found["full+prune_ffn+int8@onnx_runtime"]] == ["full+prune_ffn@onnx_runtime", PARENT]
    assert [one.words[:12] for one in found["full+prune_ffn+int8@onnx_runtime"]] == ["3.9× smaller", "5.0× smaller"]
    [alone] = found["full+prune_ffn+int8@openvino_ir"]
    assert (alone.kind, alone.against) == ("none", "")
    assert alone.words == "no full@openvino_ir with fewer trims was measured"


def test_without_its_parent_a_candidate_is_held_against_the_plainest_that_there_is() -> None:
    rows = [failed("full", "out of memory"), row("full", "int8", mb=23), row("full", "prune_ffn+int8", mb=18)]
    found = judged(rows, 380, 380)
    assert [one.against for one in found["full+prune_ffn+int8@onnx_runtime"]] == ["full+int8@onnx_runtime"]
    assert found["full+int8@onnx_runtime"][0].kind == "none"


def test_a_language_models_quality_is_its_perplexity_and_its_trivial_rule_the_untuned_model() -> None:
    def rows_of(nats: float) -> tuple[tuple[float, int], ...]:
        return tuple((10 * (nats + 0.01 * (at % 7)), 10) for at in range(50))

    rows = [row("lora"), row("lora", "int8", mb=23), row("lora", "int4", mb=13), row("lora", "binary", mb=3)]
    given = dict(zip((each.name for each in rows), map(rows_of, (0.7, 0.7, 0.75, 1.2)), strict=True))
    untuned = Baseline(name="untuned", title="Untuned model", predictions=rows_of(1.1))
    choice = choose(rows, given, (), [], "quality", [untuned], "perplexity", machine={"flags": []})
    int8, int4, binary = choice.verdicts
    assert (int8.kind, int4.kind, binary.kind) == ("gain", "trade", "unsafe")
    assert int8.words.endswith("perplexity tied (+0.00%, 0.00 to 0.00)")
    assert int4.words.endswith("perplexity +5.1% (5.1 to 5.1)")
    assert binary.words == "perplexity 3.42 on 50 test prompts, no better than Untuned model (perplexity 3.09 on 50 test prompts)"
