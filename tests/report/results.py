"""Results as a run would leave them, made from records: one of each shape that the report has to show well."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

from trimtune.records import Candidate, DataSpec, Limit, Reading, Study, Use
from trimtune.results import Baseline, Choice, DataFacts, Rejection, Result, Row, Search, SeedFit, Step, Trial

LABELS = (
    "billing_question",
    "bug_report",
    "cancel_subscription",
    "change_plan",
    "data_request",
    "feature_request",
    "how_to",
    "integration_help",
    "login_problem",
    "refund_request",
    "service_down",
    "team_access",
)
N = 400
QUALITY = {"full": 0.912, "lora": 0.905, "prefix": 0.8875, "prompt": 0.84, "head": 0.78, "none": 0.1}
RATES = {"full": 3e-5, "lora": 1e-3, "prefix": 1e-2, "prompt": 1e-2, "head": 5e-3}
SPEED = {
    ("torch_eager", False): 8.6,
    ("torch_eager", True): 9.4,
    ("onnx_runtime", False): 7.8,
    ("onnx_runtime", True): 3.61,
    ("openvino_ir", False): 2.55,
    ("openvino_ir", True): 4.3,
}
LIMITS = (Limit(reading="size_mb", op="<=", value=30), Limit(reading="latency_p50_ms", op="<=", value=8))


def wilson(share: float, n: int) -> tuple[float, float]:
    middle, half = share + 1.92 / n, 1.96 * math.sqrt(share * (1 - share) / n + 0.96 / n**2)
    return (middle - half) / (1 + 3.84 / n), (middle + half) / (1 + 3.84 / n)


def readings(accuracy: float, p50: float, size: float, fit: float) -> dict[str, Reading]:
    low, high = wilson(accuracy, N)

    def one(name: str, value: float | None, unit: str, better: str, n: int, *ends: float, **more: str) -> Reading:
        pair = dict(zip(("low", "high"), ends, strict=False))
        return Reading(name=name, value=value, unit=unit, better=better, n=n, **pair, **more)  # type: ignore[arg-type]

    found = [
        one("accuracy", accuracy, "fraction", "higher", N, low, high, interval="Wilson 95%"),
        one("macro_f1", accuracy - 0.011, "fraction", "higher", N, low - 0.014, high - 0.008, interval="bootstrap 95% over rows"),
        one("worst_class_accuracy", accuracy - 0.21, "fraction", "higher", 33, note="change_plan"),
        one("latency_p50_ms", p50, "ms", "lower", 500, p50 * 0.97, p50 * 1.04, interval="bootstrap 95% over rounds"),
        one("latency_p95_ms", p50 * 1.31, "ms", "lower", 500, p50 * 1.24, p50 * 1.42, interval="bootstrap 95% over rounds"),
        one(
            "throughput_rows_per_s",
            1900 / p50,
            "rows/s",
            "higher",
            60,
            1850 / p50,
            1960 / p50,
            interval="bootstrap 95% over rounds",
        ),
        one("peak_memory_mb", 180 + 2.4 * size, "MB", "lower", 1),
        one("size_mb", size, "MB", "lower", 1),
        one("fit_seconds", fit, "s", "lower", 1),
    ]
    return {reading.name: reading for reading in found}


def row(method: Use, trims: tuple[Use, ...], engine: str, seed: int = 0) -> Row:
    noise, int8 = random.Random(f"{method.label}{trims}{engine}{seed}"), any(trim.name == "int8" for trim in trims)
    pruned = any(trim.name == "prune_ffn" for trim in trims)
    accuracy = round((QUALITY.get(method.name, 0.85) - 0.004 * int8 - 0.012 * pruned + noise.uniform(-0.006, 0.006)) * N) / N
    p50 = SPEED.get((engine, int8), 6.0) * (0.78 if pruned else 1) * noise.uniform(0.95, 1.05)
    size = (23.6 if int8 else 91.4) * (0.84 if pruned else 1) + noise.uniform(0, 0.5)
    return Row(
        candidate=Candidate(method=method, trims=trims, engine=Use(name=engine)),
        status="measured",
        packed="packed" if int8 else "plain",
        artifact="a" * 64,
        readings=readings(accuracy, p50, size, 40 + 30 * noise.random()),
    )


def searched(name: str, trials: int = 6, seeds: int = 3, **more: Any) -> Search:
    noise, best = random.Random(name), QUALITY.get(name, 0.85)
    rates = [RATES.get(name, 1e-3) * 10 ** (0.35 * (i - 2)) for i in range(trials)]
    found = tuple(
        Trial(
            learning_rate=rate,
            score=max(0.06, best - 0.11 * abs(i - 2) ** 1.4 + noise.uniform(0, 0.01)),
            pruned=i in (0, 5),
            curve=(0.4, 0.6, 0.8),
            seconds=6.2 + noise.random(),
        )
        for i, rate in enumerate(rates)
    )
    fits = tuple(
        SeedFit(seed=i, validation_score=best + 0.01, test_score=best + noise.uniform(-0.011, 0.011), seconds=8.0)
        for i in range(seeds)
    )
    return Search(
        **{
            "method": Use(name=name),
            "trials_asked": 6,
            "trials": found,
            "seeds_asked": 3,
            "seeds": fits,
            "learning_rate": rates[min(2, trials - 1)] if rates else None,
            "seconds": 62 * noise.uniform(0.4, 1),
            "peak_memory_mb": 900 * noise.uniform(0.5, 1),
            **more,
        }
    )


def baseline(name: str, title: str, accuracy: float, **more: str) -> Baseline:
    taken = readings(accuracy, 1.0, 2.5, 1.4)
    kept = ("accuracy", "macro_f1", "worst_class_accuracy", "size_mb", "fit_seconds")
    return Baseline(name=name, title=title, readings={key: taken[key] for key in kept}, predictions=(0,) * N, **more)


BASELINES = (
    baseline("majority", "Majority class", 0.24),
    baseline("nearest_centroid", "Nearest centroid", 0.84),
    baseline("tfidf_logistic", "TF-IDF + logistic regression", 0.825, note="C = 10"),
)


def result(rows: tuple[Row, ...], choice: Choice, **more: Any) -> Result:
    methods = tuple(dict.fromkeys(row.candidate.method.name for row in rows)) or ("lora",)
    study = Study(
        name=more.pop("name", "helpdesk"),
        model="minilm",
        task="text-classification",
        data=DataSpec(train="/rows/train.csv"),
        tune=tuple(Use(name=name) for name in methods),
        trim=((), (Use(name="int8"),)),
        engine=(Use(name="torch_eager"), Use(name="onnx_runtime"), Use(name="openvino_ir")),
        require=more.pop("require", LIMITS),
    )
    facts = DataFacts(
        labels=LABELS,
        rows={"train": 1280, "validation": 240, "test": N},
        text="text",
        label="intent",
        notes=("train.csv: 2 rows were given twice and are counted once.",),
        sources={"train": "train.csv"},
    )
    steps = tuple(
        Step(
            step=step,
            part=name,
            key=f"{step}{name}" * 4,
            seconds=12.3,
            start_seconds=0.36,
            peak_memory_mb=812.0,
            reused=name == "head",
        )
        for step in ("tune", "trim", "engine", "measure")
        for name in methods
    )
    noise, measured = random.Random(1), [row for row in rows if row.status == "measured"]
    truth = tuple(noise.randrange(12) for _ in range(N))
    return Result(
        **{
            "study": study,
            "data": facts,
            "rows": rows,
            "choice": choice,
            "steps": steps,
            "searches": tuple(map(searched, methods)),
            "machine": {
                "cpu": "AMD EPYC 9R14",
                "cores": 2,
                "memory_gb": 7.76,
                "threads": 2,
                "precision": {"fp32_gflops": 187.3, "bf16_gflops": 51.2, "chosen": "fp32"},
                "packages": {"torch": "2.13.0", "onnxruntime": "1.31.0"},
            },
            "predictions": {
                row.name: tuple(label if noise.random() < 0.9 else noise.randrange(12) for label in truth) for row in measured
            },
            "truth": truth,
            "version": "0.1.0",
            "created": "2026-02-03T10:11:12+00:00",
            "seconds": 318.4,
            **more,
        }
    )


def full() -> Result:
    """Five methods, three trims, three engines, one of them absent in part; two trials of lora did not fit the budget."""
    chains: tuple[tuple[Use, ...], ...] = ((), (Use(name="int8"),), (Use(name="prune_ffn"), Use(name="int8")))
    names = itertools.product(QUALITY, chains, ("torch_eager", "onnx_runtime", "openvino_ir"))
    rows = [row(Use(name=method), trims, engine) for method, trims, engine in names if method != "none"]
    failed = [
        at
        for at, each in enumerate(rows)
        if each.candidate.engine.name == "openvino_ir" and each.candidate.method.name == "prompt"
    ]
    for at in failed:
        rows[at] = Row(
            candidate=rows[at].candidate, status="failed", cause="killed by the system (signal 9): out of memory at 3,912 MB"
        )
    picked, runner_up = "full+int8@onnx_runtime", "lora+int8@onnx_runtime"
    size = LIMITS[0]
    rejected = tuple(
        Rejection(
            candidate=each.name,
            reason="it failed: out of memory"
            if each.status == "failed"
            else f"size_mb is {each.value('size_mb'):.1f}, over the limit of 30"
            if not size.allows(each.value("size_mb") or 0)
            else "inside the limits, but less accurate than the picked one",
        )
        for each in rows
        if each.name != picked
    )
    best = next(each for each in rows if each.name == picked)
    choice = Choice(
        picked=picked,
        runner_up=runner_up,
        binding_limit="size_mb <= 30",
        rejected=rejected,
        tied=(picked, runner_up),
        sentence=f"{picked} is the most accurate candidate inside the limits: {best.value('accuracy'):.1%} of 400 test "
        f"rows right, {best.value('latency_p50_ms'):.1f} ms per row, {best.value('size_mb'):.1f} MB. "
        f"{runner_up} is tied with it in accuracy; "
        "it was passed over because it answers more slowly.",
    )
    searches = (searched("full"), searched("lora", trials=4), *map(searched, ("prefix", "prompt", "head")))
    return result(tuple(rows), choice, searches=searches, baselines=BASELINES)


def trials() -> Result:
    """Searches of 3 to 8 trials: pruned ones, failed ones, a single one that was scored."""
    searches = []
    for at, name in enumerate(QUALITY):
        found = searched(name, trials=3 + at)
        lost = {0: (2,), 2: (0, 4), 3: (0, 1, 2, 3, 5), 5: (6, 7)}.get(at, ())
        searches.append(found.model_copy(update={"trials": tuple(
            trial.model_copy(update={"score": None, "pruned": False, "cause": "the loss became NaN"}) if i in lost else trial
            for i, trial in enumerate(found.trials))}))
    return full().model_copy(update={"searches": tuple(searches)})


def nothing_fits() -> Result:
    rows = tuple(row(Use(name=name), (), engine) for name in ("full", "lora") for engine in ("torch_eager", "onnx_runtime"))
    choice = Choice(
        picked=None,
        runner_up=None,
        binding_limit="size_mb <= 10",
        tied=(),
        rejected=tuple(Rejection(candidate=each.name, reason="size_mb is 91.6, over the limit of 10") for each in rows),
        sentence="No candidate is inside the limits. The nearest is full@onnx_runtime: relax size_mb from 10 to 91.7.",
    )
    return result(
        rows, choice, require=(Limit(reading="size_mb", op="<=", value=10), Limit(reading="accuracy", op=">=", value=0.9))
    )


def none_measured() -> Result:
    cause = "onnxruntime is not installed: pip install 'trimtune[onnx]'"
    rows = tuple(
        Row(
            candidate=Candidate(method=Use(name=name), trims=(), engine=Use(name="onnx_runtime")),
            status="unavailable",
            cause=cause,
        )
        for name in ("full", "lora")
    )
    searches = (searched("full", trials=0, seeds=0, learning_rate=None, cause="the loss became NaN at every learning rate"),)
    choice = Choice(picked=None, runner_up=None, binding_limit=None, rejected=(), sentence="No candidate could be measured.")
    return result(rows, choice, searches=searches, require=(), steps=())


def one() -> Result:
    only = row(Use(name="head"), (), "torch_eager")
    short = only.readings["latency_p95_ms"].model_copy(
        update={"value": None, "low": None, "high": None, "n": 40, "note": "too few samples, 40 of 200"}
    )
    only = only.model_copy(update={"readings": {**only.readings, "latency_p95_ms": short}})
    choice = Choice(
        picked=only.name,
        runner_up=None,
        binding_limit=None,
        rejected=(),
        tied=(only.name,),
        sentence="head@torch_eager is the only candidate. There is nothing to compare it with.",
    )
    return result((only,), choice, searches=(searched("head", trials=1, seeds=1, trials_asked=1, seeds_asked=1),), require=())


def many() -> Result:
    """60 candidates with long names, ten uses of one method, one of them simulated."""
    uses = [Use(name="lora", given={"r": r, "target_modules": "all-linear", "lora_dropout": r / 20}) for r in range(1, 11)]
    trims: tuple[tuple[Use, ...], ...] = (
        (),
        (Use(name="prune_ffn", given={"ratio": 0.3, "recovery_epochs": 2}), Use(name="int8")),
    )
    rows = [
        row(use, chain, engine) for use in uses for chain in trims for engine in ("torch_eager", "onnx_runtime", "openvino_ir")
    ]
    rows[7] = rows[7].model_copy(update={"packed": "simulated"})
    best = max(rows, key=lambda each: each.value("accuracy") or 0)
    choice = Choice(
        picked=best.name,
        runner_up=rows[3].name,
        binding_limit=None,
        rejected=(),
        tied=tuple(each.name for each in rows[:20]),
        sentence=f"{best.name} is the most accurate candidate. 19 others are tied with it.",
    )
    searches = tuple(searched("lora", method=use) for use in uses)
    return result(tuple(rows), choice, searches=searches, require=())


def hostile() -> Result:
    """Everything a user may name carries markup."""
    bad = "<script>alert(1)</script>\"'|`*</style>"
    use = Use(name=bad, given={"x": "</svg><img src=x onerror=alert(2)>"})
    rows = (
        row(use, (Use(name="int8"),), "torch_eager"),
        Row(candidate=Candidate(method=use, trims=(), engine=Use(name=bad)), status="failed", cause=f"{bad}\nsecond line"),
    )
    choice = Choice(
        picked=rows[0].name,
        runner_up=None,
        binding_limit=bad,
        tied=(),
        sentence=f"{bad} is picked.",
        rejected=(Rejection(candidate=rows[1].name, reason=bad),),
    )
    facts = DataFacts(labels=(bad, "=1+1"), rows={"test": N, bad: 3}, text=bad, label=bad, notes=(bad,), sources={bad: bad})
    return result(
        rows,
        choice,
        name=bad,
        data=facts,
        searches=(searched("x", method=use, notes=(bad,), cause=bad),),
        machine={bad: {bad: [bad, bad]}},
    )
