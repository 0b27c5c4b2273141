"""The next smaller model in the reports: its figures, how it stands to the pick, why one is missing."""

from __future__ import annotations

from pathlib import Path

from tests.report import results

from trimtune.report import markdown, page
from trimtune.results import Result, Row, Verdict


def raced() -> tuple[Result, Row]:
    shown = results.full()
    measured = next(row for row in shown.rows if row.status == "measured" and not row.candidate.trims)
    candidate = measured.candidate.model_copy(update={"model": "/somewhere/mini"})
    rival = measured.model_copy(update={"candidate": candidate})
    broken = Row(candidate=candidate.model_copy(update={"method": candidate.method.model_copy(update={"name": "odd"})}),
                 status="failed", cause="tuning failed: no memory")
    verdict = Verdict(candidate=rival.name, against=shown.choice.picked or "", kind="gain", words="3.0× smaller, accuracy tied")
    choice = shown.choice.model_copy(update={"smaller": (verdict,)})
    study = shown.study.model_copy(update={"smaller": "/somewhere/mini"})
    return shown.model_copy(update={"rivals": (rival, broken), "choice": choice, "study": study}), rival


def test_both_reports_show_it_beside_the_baselines() -> None:
    given, rival = raced()
    for text in (markdown.text(given, Path("runs/helpdesk")).replace("\\", ""),
                 page.html(given, Path("runs/helpdesk")).replace("<wbr>", "")):
        assert "The next smaller model" in text
        assert rival.name in text and "gain: 3.0× smaller, accuracy tied" in text
        assert "mini:odd" in text and "tuning failed: no memory" in text
        assert f"compared with {given.choice.picked}" in text


def test_without_one_nothing_is_said_of_it() -> None:
    assert "smaller model" not in markdown.text(results.full(), Path("runs/helpdesk"))
    assert "The next smaller model" not in page.html(results.full(), Path("runs/helpdesk"))
