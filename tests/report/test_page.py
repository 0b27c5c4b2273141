"""The page: whole, closed to the network, honest about what failed, and with everything user-given escaped."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.report import results

from trimtune.report import markdown, page

VOID = {"meta", "wbr", "img", "link", "br"}


class Nesting(HTMLParser):
    """Collects the elements and the visible text, and fails on an end tag that matches no start tag."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


@cache
def drawn(shape: str) -> str:
    return page.html(getattr(results, shape)(), Path("my runs/helpdesk"))


def parsed(html: str) -> Nesting:
    found = Nesting()
    found.feed(html)
    assert found.open == []
    return found


@pytest.mark.parametrize("shape", ["nothing_fits", "none_measured", "one",
                                   *(pytest.param(shape, marks=pytest.mark.slow) for shape in ("full", "many", "hostile"))])
def test_the_page_is_closed_and_asks_for_nothing(shape: str) -> None:
    html = drawn(shape)
    found = parsed(html)
    assert not {tag for tag, _ in found.seen} & {"img", "link", "iframe", "object", "embed", "base", "image", "use"}
    assert sum(tag == "script" for tag, _ in found.seen) == sum(tag == "style" for tag, _ in found.seen) == 1
    for _, attributes in found.seen:
        assert not [name for name in attributes if name in ("style", "src") or name.startswith("on")], attributes
        assert (attributes.get("href") or "#").startswith("#")
    ids = [attributes["id"] for _, attributes in found.seen if "id" in attributes]
    assert len(ids) == len(set(ids)), "inlined pictures must not share ids"
    policy = next(attributes["content"] for tag, attributes in found.seen if "http-equiv" in attributes) or ""
    assert "default-src 'none'" in policy
    for tag in ("style", "script"):
        text = re.search(rf"<{tag}>(.*?)</{tag}>", html, re.S)
        assert text and base64.b64encode(hashlib.sha256(text[1].encode()).digest()).decode() in policy


def test_user_given_markup_is_text() -> None:
    given = results.hostile()
    html = drawn("hostile")
    assert "<script>alert" not in html and "<img" not in html
    assert given.study.name in parsed(html).text, "shown as it was given"
    lines = [line for line in markdown.text(given, Path("runs") / given.study.name).splitlines() if "<script>" in line]
    assert [line[:17] for line in lines] == ["    trimtune ship"], "only in an indented code block, where it is text"


def test_the_choice_comes_first_with_its_figures() -> None:
    given = results.full()
    text = parsed(drawn("full")).text
    row = given.row(given.choice.picked or "")
    assert text.index(given.choice.sentence) < text.index("Candidates Each line")
    head = text[: text.index("Candidates Each line")]
    assert f"{row.value('accuracy'):.1%}" in head and "n = 400" in head and "limit ≤ 8 ms" in head
    assert "trimtune ship 'my runs/helpdesk' -o bundle/" in head


def test_nothing_fits_is_a_warning() -> None:
    html = drawn("nothing_fits")
    assert "Nothing fits the limits" in html and 'role="alert"' in html and "Ship it" not in html
    assert "The limit Size on disk ≤ 10 MB lies outside the picture." in html


def test_failures_are_told_with_their_cause() -> None:
    text = parsed(drawn("full")).text
    assert text.count("out of memory at 3,912 MB") == 4, "once per failed row and once in the list of failures"
    text = parsed(drawn("none_measured")).text
    assert "Nothing was measured" in text and "the loss became NaN at every learning rate" in text


def test_a_refused_percentile_says_why() -> None:
    assert "too few samples, 40 of 200" in drawn("one")


def test_a_stored_candidate_has_its_measured_speed_and_the_word_is_explained() -> None:
    given = results.one()
    stored = given.model_copy(update={"rows": (given.rows[0].model_copy(update={"packed": "stored"}), *given.rows[1:])})
    html = page.html(stored, Path("my runs/helpdesk"))
    assert '<span class="badge stored">stored</span>' in html
    assert f"{given.rows[0].value('latency_p50_ms'):.2f} ms" in parsed(html).text
    assert "unpacked when they are loaded" in html
    assert "Simulated candidates:" not in html


def test_a_simulated_candidate_has_no_speed_beside_real_ones() -> None:
    given = results.many()
    text, row = parsed(drawn("many")).text, given.rows[7]
    before, after = text.split("Simulated candidates:")
    line = before[before.index(row.name) :][:200]
    assert f"{row.value('latency_p50_ms'):.2f} ms" not in line and "simulated" in line
    assert f"{row.value('latency_p50_ms'):.2f} ms" in after
    assert f"#13 {row.name}: " not in drawn("many"), "and no point in the pictures"


def test_markdown_has_the_same_choice_and_table() -> None:
    given = results.full()
    text = markdown.text(given, Path("runs") / given.study.name)
    assert given.choice.sentence in text
    assert sum(line.startswith(f"| {number} | ") for number in range(1, 46) for line in text.splitlines()) == 45
    table = [line for line in text.splitlines() if line.startswith("| ")]
    for line in table[:47]:
        assert len(re.findall(r"(?<!\\)\|", line)) == 13, line


def test_baselines_and_the_worst_class_are_told_in_both_reports() -> None:
    given = results.full()
    text, page_text = markdown.text(given, Path("runs/helpdesk")), parsed(drawn("full")).text
    assert "| TF-IDF + logistic regression | 82.5% (78.5–85.9%) |" in text and "beaten; C = 10 |" in text
    assert "Baselines: not tuned" in page_text and "Majority class (24.0%) lies below the picture." in page_text
    assert "change_plan, 23 of 33" in text[: text.index("## Candidates")]
    assert "change_plan, 23 of 33" in page_text[: page_text.index("Candidates Each line")]
