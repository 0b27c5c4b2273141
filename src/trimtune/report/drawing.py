"""What the pictures share: each method's color, each engine's shape, ticks, and Altair's chart as SVG inlined in the page.

Colors are CSS variables of the page (`var(--m1)`), so that one SVG serves light and dark.
"""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass
from typing import Any

from trimtune.results import Result

SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")
HUES = 7
"""colors of the palette (Okabe and Ito's, darkened for contrast); methods beyond them share the gray `--m0`"""
_clips = itertools.count()


@dataclass(frozen=True)
class Keys:
    """Which color each method has and which shape each engine, the same in every picture."""

    colors: dict[str, str]
    shapes: dict[str, str]


def keys(result: Result) -> Keys:
    methods = list(dict.fromkeys(row.candidate.method.label for row in result.rows))
    methods += [search.method.label for search in result.searches if search.method.label not in methods]
    engines = list(dict.fromkeys(row.candidate.engine.label for row in result.rows))
    return Keys({name: f"var(--m{i + 1 if i < HUES else 0})" for i, name in enumerate(methods)},
                {name: SHAPES[i % len(SHAPES)] for i, name in enumerate(engines)})


def ticks(low: float, high: float) -> list[float]:
    """Steps for a logarithmic axis: 1-2-5, finer ones within a decade, only 1 when it spans more than three."""
    steps = (1, 1.5, 2, 3, 4, 5, 7) if high / low < 12 else (1, 2, 5) if high / low < 1000 else (1,)
    return [step * 10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1) for step in steps
            if low <= step * 10.0**power <= high]


def svg(chart: Any, width: int, height: int, **data: list[dict[str, Any]]) -> str:
    """The chart as SVG of this size, for inlining: page's font, ids of its own, each mark's description as a tooltip.

    The data comes by name, since Altair copies what is inside a chart many times over.
    """
    import vl_convert

    styled = chart.configure(font="sans-serif", background="transparent", padding=2).configure_view(stroke=None).configure_axis(
        labelColor="var(--muted)", titleColor="var(--muted)", gridColor="var(--grid)", domainColor="var(--rule)",
        tickColor="var(--rule)", labelFontSize=11, titleFontSize=11.5, titleFontWeight="normal", titlePadding=8, labelPadding=4,
        labelOverlap=True)
    spec = styled.to_dict(validate=False)
    spec |= {"width": width, "height": height, "datasets": spec.get("datasets", {}) | data,
             "autosize": {"type": "fit", "contains": "padding"}}
    drawn = vl_convert.vegalite_to_svg(spec)
    prefix = f"p{next(_clips)}-"
    drawn = re.sub(r'(url\(#|id=")(clip)', rf"\g<1>{prefix}\g<2>", drawn)
    drawn = re.sub(r' font-family="[^"]*"', "", drawn)
    return re.sub(r'<path aria-label="([^"]*)"([^>]*)/>', r'<path aria-label="\1"\2><title>\1</title></path>', drawn)
