"""The picture of one method's search: validation score over learning rate."""

from __future__ import annotations

from trimtune import parts
from trimtune.report import words
from trimtune.report.drawing import Keys, svg, ticks
from trimtune.results import Result, Search

_CROSS = "M-.7,-.7L.7,.7M-.7,.7L.7,-.7"


def picture(result: Result, found: Search, keyed: Keys, width: int = 320, height: int = 190) -> str:
    """SVG of validation score over learning rate: pruned trials hollow, failed ones a cross at the foot, the best ringed.

    Empty without a scored trial.
    """
    import altair as alt

    scored = [trial for each in result.searches for trial in each.trials if trial.score is not None and not trial.cause]
    own = [trial for trial in found.trials if trial.score is not None and not trial.cause]
    task = parts.load("task", result.study.task)
    unit = words.unit_of(result, task.METRIC)
    scale = words.percent_scale(unit)
    if not own:
        return ""
    best = max((trial for trial in own if not trial.pruned), key=lambda trial: trial.score or 0.0, default=None)
    data = [{"x": trial.learning_rate, "y": scale * task.metric(trial.score or 0), "pruned": trial.pruned, "best": trial is best,
             "told": f"learning rate {words.rate(trial.learning_rate)}: {words.show(task.metric(trial.score or 0), unit)}"
                     f"{', stopped early' if trial.pruned else ''}, {words.duration(trial.seconds)}"} for trial in own]
    values = [scale * task.metric(trial.score or 0) for trial in scored]
    low, high = min(values), max(values)
    air = 0.08 * (high - low) or 2.0
    less = task.metric(1.0) < task.metric(0.0)
    foot = high + air if less else max(0.0, low - air)
    failed = [{"x": trial.learning_rate, "y": foot,
               "told": f"learning rate {words.rate(trial.learning_rate)}: failed, {trial.cause}"}
              for trial in found.trials if trial.cause]
    rates = [trial.learning_rate for trial in found.trials]
    if found.method.name in parts.names("method"):  # a part that was dropped in for the run may be gone
        rates += parts.load("method", found.method.name).LEARNING_RATES
    color = keyed.colors[found.method.label]
    x = alt.X("x:Q", title="Learning rate", scale=alt.Scale(type="log", domain=[min(rates) / 1.4, max(rates) * 1.4], nice=False),
              axis=alt.Axis(values=ticks(min(rates) / 1.4, max(rates) * 1.4), format="~e"))
    ends = [max(0.0, low - 1.5 * air), foot] if less else [foot, min(103.0, high + 1.5 * air)]
    y = alt.Y("y:Q", title=f"Validation {task.METRIC}{', %' if scale == 100 else ''}", axis=alt.Axis(tickCount=5),
              scale=alt.Scale(domain=ends, nice=False, reverse=less))
    base = alt.Chart(alt.NamedData(name="trials"))
    chart = alt.layer(
        base.transform_filter("!datum.pruned").mark_line(color=color, opacity=0.35, strokeWidth=1.5, aria=False).encode(x, y),
        base.transform_filter("datum.best").mark_point(size=260, color="var(--accent)", strokeWidth=2.2, opacity=1,
                                                       aria=False).encode(x, y),
        base.transform_filter("datum.pruned").mark_point(size=64, color=color, strokeWidth=1.75, fill="var(--card)", opacity=1
                                                         ).encode(x, y, description="told:N"),
        base.transform_filter("!datum.pruned").mark_point(filled=True, size=64, color=color, opacity=1).encode(
            x, y, description="told:N"),
        alt.Chart(alt.NamedData(name="failed")).mark_point(shape=_CROSS, size=60, color="var(--bad)", strokeWidth=1.75, opacity=1,
                                                           clip=False).encode(x, y, description="told:N"))
    return svg(chart, width, height, trials=data, failed=failed)
