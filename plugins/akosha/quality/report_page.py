"""The entry of a validation report: one page that needs nothing from the network, with links into the Data Docs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from akosha.quality.expectations import Expectation

_STYLE: Final = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;width:100%;margin:.5rem 0 2rem}th,td{text-align:left;padding:.35rem .7rem;"
    "border-bottom:1px solid #ddd;vertical-align:top}.ok{color:#17692b}.bad{color:#a3150f;font-weight:600}"
)


def report_page(
    *,
    message: str,
    success: bool,
    facts: Mapping[str, object],
    expectations: Sequence[Expectation],
    pages: Sequence[str],
) -> str:
    """The page as HTML.

    Args:
        message: the one line for operators.
        success: the verdict.
        facts: names and values shown above the expectations.
        expectations: each with what was expected and found.
        pages: paths of Data Docs pages, relative to this one.
    """
    verdict = "passed" if success else "FAILED"
    return (
        f"<!doctype html><meta charset=utf-8><title>Akosha validation: {verdict}</title><style>{_STYLE}</style>"
        f'<h1>Validation <span class="{_tone(success)}">{verdict}</span></h1><p>{escape(message)}</p>'
        f"<table>{''.join(_row('td', name, value) for name, value in facts.items())}</table>"
        f"<h2>Expectations</h2><table>{_row('th', 'suite', 'column', 'expectation', 'expected', 'found', '')}"
        f"{''.join(map(_expectation, expectations))}</table><h2>Great Expectations Data Docs</h2><ul>"
        + "".join(f'<li><a href="{escape(page)}">{escape(page)}</a></li>' for page in pages)
        + "</ul>"
    )


def _expectation(found: Expectation) -> str:
    mark = f'<span class="{_tone(found.success)}">{"ok" if found.success else "broken"}</span>'
    cells = "".join(
        f"<td>{escape(str(value))}</td>"
        for value in (found.suite, found.column, found.expectation, found.expected, found.found)
    )
    return f"<tr>{cells}<td>{mark}</td></tr>"


def _row(tag: str, *cells: object) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"


def _tone(success: bool) -> str:  # noqa: FBT001 - two words for two states
    return "ok" if success else "bad"
