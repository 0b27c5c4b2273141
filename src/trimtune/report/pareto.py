"""The picture of quality against cost, with the Pareto front, the study's limits and the baselines."""

from __future__ import annotations

import math
from typing import Any

from trimtune.records import Limit
from trimtune.report import words
from trimtune.report.drawing import Keys, svg, ticks
from trimtune.report.tables import Line, better, metric
from trimtune.results import Result


def front(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The points that no other beats: none has a lower x and is as good. `x` is a cost; `good` a quality, higher is better."""
    kept: list[dict[str, Any]] = []
    for point in sorted(points, key=lambda point: (point["x"], -point["good"])):
        if not kept or point["good"] > kept[-1]["good"]:
            kept.append(point)
    return kept


def points(result: Result, lines: list[Line], cost: str) -> list[dict[str, Any]]:
    """One point per measured candidate with real (not simulated) figures; y is the quality, shares in percent."""
    found, quality = [], metric(result)
    sign = 1 if better(result, quality) == "higher" else -1
    for line in lines:
        x, y = line.row.readings.get(cost), line.row.readings.get(quality)
        if line.simulated or x is None or y is None or x.value is None or y.value is None:
            continue
        scale = words.percent_scale(words.unit_of(result, quality))
        told = f"#{line.number} {line.row.name}: {words.value(y)} ({words.interval(y)}, n = {y.n:,}), {words.value(x)}"
        found.append({"x": x.value, "x1": x.value if x.low is None else x.low, "x2": x.value if x.high is None else x.high,
                      "y": y.value * scale, "good": sign * y.value, "y1": (y.value if y.low is None else y.low) * scale,
                      "y2": (y.value if y.high is None else y.high) * scale, "role": line.role, "told": told,
                      "number": f"#{line.number}", "method": line.row.candidate.method.label,
                      "engine": line.row.candidate.engine.label})
    return found


def picture(result: Result, lines: list[Line], cost: str, keyed: Keys, sizes: tuple[tuple[int, int], ...]) -> list[str]:
    """One SVG of quality against one cost for each (width, height) in pixels; none when no candidate has both."""
    import altair as alt

    data = points(result, lines, cost)
    if not data:
        return []
    quality = metric(result)
    unit, scale = words.unit_of(result, cost), words.percent_scale(words.unit_of(result, quality))
    limits, less = _limits(result), better(result, quality) == "lower"
    x_domain, log = _x_domain(data, limits.get(cost))
    y_domain = _y_domain(data, limits.get(quality), scale, [rule["y"] for rule in _rules(result, quality, scale)])
    x = alt.X("x:Q", title=f"{words.title(cost)}, {unit} (less is better)",
              scale=alt.Scale(domain=x_domain, type="log" if log else "linear", nice=False),
              axis=alt.Axis(values=ticks(*x_domain) if log else alt.Undefined, tickCount=6, format="~r"))
    title = f"{words.title(quality)}{', %' if scale == 100 else ''} ({'less' if less else 'more'} is better)"
    y = alt.Y("y:Q", title=title, axis=alt.Axis(tickCount=6), scale=alt.Scale(domain=y_domain, nice=False, reverse=less))
    best = front(data)
    color = alt.Color("method:N", legend=None, scale=alt.Scale(domain=list(keyed.colors), range=list(keyed.colors.values())))
    shape = alt.Shape("engine:N", legend=None, scale=alt.Scale(domain=list(keyed.shapes), range=list(keyed.shapes.values())))
    faint = alt.condition("datum.named", alt.value(0.8), alt.value(0.25))
    base = alt.Chart(alt.NamedData(name="points"))
    chart = alt.layer(
        *_limit_layers({"x": limits.get(cost), "y": limits.get(quality)}, (x, x_domain), (y, y_domain), scale), *_rule_layers(y),
        alt.Chart(alt.NamedData(name="front")).mark_line(interpolate="step-after", color="var(--front)", strokeWidth=1.5,
                                                         aria=False).encode(x, y),
        base.mark_rule(aria=False).encode(x, _on(y, "y1"), alt.Y2("y2:Q"), color, opacity=faint),
        base.mark_rule(aria=False).encode(_on(x, "x1"), alt.X2("x2:Q"), y, color, opacity=faint),
        base.transform_filter("datum.role == 'picked'").mark_point(size=420, color="var(--accent)", strokeWidth=2.5, aria=False,
                                                                   opacity=1).encode(x, y),
        base.mark_point(filled=True, size=84, opacity=1, stroke="var(--card)", strokeWidth=1).encode(
            x, y, color, shape, description="told:N"),
        alt.Chart(alt.NamedData(name="labels")).mark_text(align="left", dx=9, dy=-9, fontSize=11, fontWeight=600,
                                                          color="var(--ink)", aria=False).encode(x, y, text="number:N"))
    drawn = []
    for width, height in sizes:
        named = [point for point in data if point["role"] or point in best]
        labels = _apart(named, x_domain, y_domain, log, (width - 60, height - 45))
        rules = [rule for rule in _rules(result, quality, scale) if y_domain[0] <= rule["y"] <= y_domain[1]]
        drawn.append(svg(chart, width, height, front=best, labels=labels, rules=_told_apart(rules, y_domain, height - 45),
                          points=[{**point, "named": point in named} for point in data]))
    return drawn


def _apart(named: list[dict[str, Any]], x_domain: list[float], y_domain: list[float], log: bool,
           size: tuple[int, int]) -> list[dict[str, Any]]:
    """Those points whose labels don't cover one another: the pick's first, then the runner-up's, then the best ones'."""
    place = math.log if log else float
    kept: list[tuple[float, float, dict[str, Any]]] = []
    for point in sorted(named, key=lambda point: ({"picked": 0, "runner-up": 1}.get(point["role"], 2), -point["good"])):
        x = size[0] * (place(point["x"]) - place(x_domain[0])) / (place(x_domain[1]) - place(x_domain[0]))
        y = size[1] * (point["y"] - y_domain[0]) / (y_domain[1] - y_domain[0])
        if all(abs(x - other_x) > 30 or abs(y - other_y) > 14 for other_x, other_y, _ in kept):
            kept.append((x, y, point))
    return [point for _, _, point in kept]


def _x_domain(data: list[dict[str, Any]], limit: Limit | None) -> tuple[list[float], bool]:
    """The span of the axis, and whether it is logarithmic: it is when the largest cost is 3.5 times the smallest."""
    low, high = min(point["x1"] for point in data), max(point["x2"] for point in data)
    if limit is not None and low / 4 <= limit.value <= high * 4:
        low, high = min(low, limit.value), max(high, limit.value)
    if low > 0 and high / low > 3.5:
        return [low / 1.25, high * 1.35], True
    air = 0.08 * (high - low) or abs(high) * 0.2 or 1.0
    return [max(0.0, low - air) if low >= 0 else low - air, high + 1.6 * air], False


def _y_domain(data: list[dict[str, Any]], limit: Limit | None, scale: float, rules: list[float]) -> list[float]:
    """The points, the limit, and those baselines that are no farther off than the points are from one another."""
    low, high = min(point["y1"] for point in data), max(point["y2"] for point in data)
    near = [rule for rule in rules if 2 * low - high <= rule <= 2 * high - low]
    low, high = min([low, *near]), max([high, *near])
    if limit is not None:
        low, high = min(low, limit.value * scale), max(high, limit.value * scale)
    air = 0.05 * (high - low) or 1.0
    return [max(0.0, low - air), min(101.0, high + air) if scale == 100 else high + air]


def beyond(result: Result, lines: list[Line], cost: str) -> list[Limit]:
    """The limits on this picture's readings that lie so far off that drawing them would squeeze everything else."""
    domain, _ = _x_domain(points(result, lines, cost), _limits(result).get(cost))
    return [limit for limit in result.study.require if limit.reading == cost and not limit.parent
            and not domain[0] <= limit.value <= domain[1]]


def undrawn(result: Result, lines: list[Line], cost: str) -> list[str]:
    """The baselines that are so much worse than all points that drawing them would squeeze everything else."""
    quality = metric(result)
    unit = words.unit_of(result, quality)
    scale = words.percent_scale(unit)
    rules = _rules(result, quality, scale)
    low, high = _y_domain(points(result, lines, cost), _limits(result).get(quality), scale, [rule["y"] for rule in rules])
    worse = (lambda y: y > high) if better(result, quality) == "lower" else (lambda y: y < low)
    return [f"{rule['title']} ({words.show(rule['y'] / scale, unit)})" for rule in rules if worse(rule["y"])]


def _limits(result: Result) -> dict[str, Limit]:
    """Those that are a line: one against the parent lies elsewhere for each candidate."""
    return {limit.reading: limit for limit in result.study.require if not limit.parent}


def _rules(result: Result, quality: str, scale: float) -> list[dict[str, Any]]:
    """The baselines' quality, the highest first."""
    found = [{"y": reading.value * scale, "title": baseline.title} for baseline in result.baselines
             if (reading := baseline.readings.get(quality)) and reading.value is not None]
    return sorted(found, key=lambda rule: -rule["y"])


def _told_apart(rules: list[dict[str, Any]], y_domain: list[float], height: int) -> list[dict[str, Any]]:
    """The rules with the side that each one's name stands on: the other one where the rule above is close."""
    sides: list[bool] = []
    for above, rule in zip([None, *rules], rules, strict=False):
        close = above is not None and height * (above["y"] - rule["y"]) / (y_domain[1] - y_domain[0]) < 14
        sides.append(not sides[-1] if close else False)
    return [{**rule, "right": right} for rule, right in zip(rules, sides, strict=True)]


def _rule_layers(y: Any) -> list[Any]:
    """A thin line per baseline, named at its left or right end."""
    import altair as alt

    drawn = alt.Chart(alt.NamedData(name="rules"))
    layers = [drawn.mark_rule(color="var(--muted)", strokeWidth=1, strokeDash=[1, 3], aria=False).encode(y)]
    for right, align, at in (("false", "left", 4), ("true", "right", alt.expr("width - 4"))):
        for halo in ({"stroke": "var(--card)", "strokeWidth": 4}, {}):  # a point or a bar behind the name would blur it
            name = drawn.transform_filter(f"datum.right == {right}").mark_text(
                align=align, baseline="bottom", fontSize=10.5, color="var(--muted)", aria=False, **halo)
            layers.append(name.encode(y, x=alt.value(at), text="title:N"))
    return layers


def _limit_layers(limits: dict[str, Limit | None], x: tuple[Any, list[float]], y: tuple[Any, list[float]],
                  scale: float) -> list[Any]:
    """A dashed line per limit that falls into the picture, with the side that is not allowed shaded.

    `x` and `y` are the picture's encodings and domains; a limit repeats the encoding's scale, lest Vega add a zero to it.
    """
    import altair as alt

    layers: list[Any] = []
    for name, (encoding, domain), factor, second in (("x", x, 1.0, alt.X2), ("y", y, scale, alt.Y2)):
        limit = limits.get(name)
        if limit is None or not domain[0] <= limit.value * factor <= domain[1]:
            continue
        at, outer = limit.value * factor, domain[1] if limit.op.startswith("<") else domain[0]
        first = _on(encoding, "at")
        drawn = alt.Chart(alt.InlineData(values=[{"at": at, "outer": outer}]))
        layers += [drawn.mark_rect(color="var(--bad)", opacity=0.07, aria=False).encode(first, second("outer:Q")),
                   drawn.mark_rule(color="var(--bad)", strokeDash=[5, 4], strokeWidth=1.25, aria=False).encode(first)]
    return layers


def _on(encoding: Any, field: str) -> Any:
    """The same axis and scale for another field."""
    copied = encoding.copy(deep=False)
    copied.shorthand = f"{field}:Q"
    return copied
