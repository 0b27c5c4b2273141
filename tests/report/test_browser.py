"""The page in a real browser: nothing scrolls sideways at 400 px, the table sorts, its own policy lets its style through."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.report import results

from trimtune import flow, report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PROBE = """<!doctype html><body><iframe style="width:WIDTHpx;height:900px;border:0" src="report.html"></iframe><pre></pre><script>
document.querySelector("iframe").onload = (event) => {
  const page = event.target.contentDocument, rows = () => [...page.querySelectorAll("#candidates tbody tr")];
  const told = {wide: page.documentElement.scrollWidth, tall: page.querySelector("h1").getBoundingClientRect().height,
    font: event.target.contentWindow.getComputedStyle(page.querySelector("h1")).fontSize};
  [...page.querySelectorAll("#candidates thead button")].find((each) => each.textContent.startsWith("Latency p50")).click();
  told.sorted = rows().map((row) => row.cells[4] && row.cells[4].dataset.sort).filter(Boolean).map(Number);
  told.last = rows().at(-1).className.trim();
  document.querySelector("pre").textContent = JSON.stringify(told);
};</script>"""


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs a Chromium")
@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("shape", ["full", "many", "hostile"])
def test_the_page_in_a_browser(shape: str, width: int, tmp_path: Path) -> None:
    report.write(flow.rechoose(getattr(results, shape)()) if shape == "full" else getattr(results, shape)(), tmp_path)
    (tmp_path / "probe.html").write_text(PROBE.replace("WIDTH", str(width)))
    out = subprocess.run(
        [
            str(BROWSER),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-sync",
            "--disable-background-networking",
            "--disable-component-update",
            "--allow-file-access-from-files",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=5000",
            "--window-size=1400,1000",
            "--dump-dom",
            (tmp_path / "probe.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    told = json.loads(html.unescape(re.search(r"<pre>(.*?)</pre>", out, re.S)[1]))  # type: ignore[index]
    assert told["wide"] <= width, "the page scrolls sideways"
    assert told["font"] == ("25px" if width == 400 else "30px"), "the style did not pass the page's own policy"
    assert told["sorted"] == sorted(told["sorted"]) and told["sorted"]
    assert (told["last"] == "unmeasured") == (shape != "many"), "rows without readings stay last"
