"""The page: what was evaluated, a section per number of labels, the glossary, how to rerun it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from optllm_router.bench.html.forest import forest_panels
from optllm_router.bench.html.front_chart import front_charts
from optllm_router.bench.html.fronts import fronts_of
from optllm_router.bench.html.looks import Look, looks_of
from optllm_router.bench.html.markup import Safe, clean, safe, tag, together
from optllm_router.bench.html.numerals import count, number, plural
from optllm_router.bench.html.reliability import reliability_section
from optllm_router.bench.html.style import stylesheet
from optllm_router.bench.html.tables import extra_tables, figure_tables, glossary, singles_tables
from optllm_router.bench.records import ExtraTable, Report

_COMMAND = "optllm evaluate"
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""The browser itself is told to load nothing and to run no script."""


def render_html(report: Report) -> str:
    """Return the report as one HTML page that needs nothing but itself.

    A note that starts with "optllm evaluate" is the command to rerun it and stands in the footer;
    the others stand under the heading Notes. Figures that are NaN or absent show as an en dash.
    """
    looks = looks_of([*(row.router for row in report.rows), *(run.router for run in report.runs)])
    labels = sorted(
        {row.n_labelled for row in report.rows} | {run.n_labelled for run in report.runs}
    )
    sections = [_section(report, n_labelled, looks) for n_labelled in labels]
    body = tag(
        "body",
        _header(report, labels),
        tag(
            "main",
            *sections,
            _candidates(report),
            _extras(report),
            _notes(report.notes),
            _meanings(),
        ),
        _footer(report.notes),
    )
    return _page(f"Evaluation of {report.source}", body)


def render_tables_html(
    title: str, tables: Sequence[ExtraTable], *, notes: Sequence[str] = ()
) -> str:
    """Return written tables, each with its note, as one HTML page that needs nothing but itself.

    Notes stand as in `render_html`. Without tables the page says that there is none.
    """
    shown = extra_tables(tables) if tables else tag("p", "There is no table to show.")
    body = tag(
        "body",
        tag("header", tag("h1", *_breakable(title))),
        tag("main", tag("section", shown, id="tables"), _notes(notes)),
        _footer(notes),
    )
    return _page(title, body)


def _page(title: str, body: Safe) -> str:
    return f"<!doctype html>\n{tag('html', _head(title), body, lang='en')}\n"


def _head(title: str) -> Safe:
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=Safe(_POLICY)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        tag("style", Safe(stylesheet())),
    )


def _header(report: Report, labels: list[int]) -> Safe:
    facts = {
        "queries": count(report.n_queries),
        "distinct texts": count(report.n_texts),
        "candidates": count(len(report.singles)),
        "split": report.split,
        "costs": report.costs,
        "seeds": count(report.n_seeds),
        "resamples": count(report.n_resamples),
    }
    listed = [tag("div", tag("dt", name), tag("dd", value)) for name, value in facts.items()]
    links = [
        *(tag("a", plural(n, "label"), href=f"#labels-{n}") for n in labels),
        tag("a", "Candidates", href="#candidates"),
        tag("a", "Glossary", href="#glossary"),
    ]
    return tag(
        "header",
        tag("h1", "Evaluation of ", *_breakable(report.source)),
        tag(
            "p",
            "Routers and baselines on recorded outcomes: what each would have spent and scored on "
            "queries that it had not seen.",
            class_="lede",
        ),
        tag("dl", *listed),
        tag("nav", tag("ul", *(tag("li", link) for link in links)), aria_label="Sections"),
    )


def _breakable(path: str) -> list[Safe]:
    """Return the text with places for a line break behind its slashes."""
    *folders, last = path.split("/")
    return [*(together([folder, "/", tag("wbr")]) for folder in folders), safe(last)]


def _section(report: Report, n_labelled: int, looks: Mapping[str, Look]) -> Safe:
    n_test = report.n_test.get(n_labelled)
    share = n_labelled / report.n_queries if report.n_queries else float("nan")
    told = (
        f"n = {count(n_test)} test queries; {count(n_labelled)} labelled queries are "
        f"{number(100 * share, 1)}\N{NO-BREAK SPACE}% of the table."
    )
    return tag(
        "section",
        tag("h2", plural(n_labelled, "label")),
        tag("p", told, class_="lede"),
        front_charts(fronts_of(report, n_labelled), looks),
        _intervals(forest_panels(report, n_labelled, looks)),
        tag("h3", "Figures"),
        figure_tables(report, n_labelled),
        _remarks(report, n_labelled),
        reliability_section(report, n_labelled, looks),
        id=f"labels-{n_labelled}",
    )


def _intervals(panels: Safe) -> Safe:
    if not panels:
        return panels
    told = "Means over seeds; whiskers are 95 % intervals, missing where none is known."
    return together([tag("h3", "Headline figures with 95 % intervals"), tag("p", told), panels])


def _remarks(report: Report, n_labelled: int) -> Safe:
    """Return what was noted of single routers, each remark once."""
    remarks = dict.fromkeys(
        [(row.router, row.note) for row in report.rows if row.n_labelled == n_labelled]
        + [(run.router, run.note) for run in report.runs if run.n_labelled == n_labelled]
    )
    items = [tag("li", tag("strong", router), f": {note}") for router, note in remarks if note]
    return tag("ul", *items, class_="notes") if items else Safe("")


def _candidates(report: Report) -> Safe:
    return tag("section", tag("h2", "Candidates"), singles_tables(report), id="candidates")


def _extras(report: Report) -> Safe:
    if not report.tables:
        return Safe("")
    return tag("section", tag("h2", "Further tables"), extra_tables(report.tables), id="tables")


def _notes(notes: Iterable[str]) -> Safe:
    items = [tag("li", note) for note in notes if not _is_command(note)]
    if not items:
        return Safe("")
    return tag("section", tag("h2", "Notes"), tag("ul", *items, class_="notes"), id="notes")


def _meanings() -> Safe:
    return tag("section", tag("h2", "Glossary"), glossary(), id="glossary")


def _footer(notes: Iterable[str]) -> Safe:
    commands = [clean(note).strip() for note in notes if _is_command(note)]
    if not commands:
        return Safe("")
    shown = [tag("pre", tag("code", command)) for command in commands]
    return tag("footer", tag("h2", "How to rerun this"), *shown)


def _is_command(note: str) -> bool:
    return note.lstrip().startswith(_COMMAND)
