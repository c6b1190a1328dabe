"""The HTML report: self-contained, inert whatever the data say, and whole in a real browser."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optllm_router.bench.figures import FIGURES, HEADLINE
from optllm_router.bench.html import render_html, render_tables_html
from optllm_router.bench.html.curves import mean_curve
from optllm_router.bench.html.fronts import close_up, fronts_of, whole_window
from optllm_router.bench.html.labels import Box, Wanted, place, shortened, spaced, text_width
from optllm_router.bench.html.looks import looks_of
from optllm_router.bench.html.markup import pixels, tag
from optllm_router.bench.html.numerals import number, signed, tick_usd, usd
from optllm_router.bench.html.reliability import pooled
from optllm_router.bench.html.scales import Scale, extent, linear_ticks, log_ticks, wants_log
from optllm_router.bench.html.style import DARK, LIGHT
from optllm_router.bench.records import (
    Against,
    Drawn,
    ExtraTable,
    Reliability,
    Report,
    Row,
    Run,
    Single,
)
from optllm_router.core.evaluation import Interval

EVIL = "<script>alert(1)</script>\"'&"
ROUTERS = (
    *("ours", "zero", "random mix", "knn", "forest", "optllm", "metallm"),
    *("nsga2", "sms-emoa", "r-nsga2", "moead", "oracle"),
)
SINGLES = (
    Single(candidate="small", score=0.41, cost_usd=0.8),
    Single(candidate="medium", score=0.55, cost_usd=6.0),
    Single(candidate="large", score=0.72, cost_usd=80.0),
)
VOID = frozenset({"meta", "link", "wbr"})


def a_run(router: str, n_labelled: int, seed: int, **changes) -> Run:
    share = np.linspace(0.0, 1.0, 60)
    rise = 0.3 + 0.01 * seed + 0.01 * len(router)
    run = Run(
        router=router,
        n_labelled=n_labelled,
        n_test=8000,
        seed=seed,
        figures={},
        resampled={},
        drawn=Drawn(cost_usd=0.7 * 90**share, score=0.41 + rise * share**0.4),
        seconds=1.5,
    )
    return replace(run, **changes)


def a_row(router: str, n_labelled: int, **changes) -> Row:
    figures = {
        name: Interval(mean=0.3 + 0.01 * at, low=0.25 + 0.01 * at, high=0.35 + 0.01 * at)
        for at, name in enumerate(FIGURES)
    }
    against = {name: Interval(mean=0.1, low=-0.02, high=0.2) for name in HEADLINE}
    row = Row(
        router=router, n_labelled=n_labelled, n_seeds=2, figures=figures, against_zero=against
    )
    return replace(row, **changes)


def a_report(routers=ROUTERS, labels=(100, 1500), **changes) -> Report:
    bins = Reliability(
        candidate="small",
        prob=np.linspace(0.05, 0.95, 15),
        score=np.linspace(0.1, 0.9, 15),
        n=np.full(15, 533.0),
    )
    report = Report(
        source="mmlu/outcomes.parquet",
        n_queries=11954,
        n_texts=11800,
        split="text",
        costs="forecast",
        n_seeds=2,
        n_resamples=1000,
        n_test=dict.fromkeys(labels, 8000),
        singles=SINGLES,
        test_singles=dict.fromkeys(labels, changes.get("singles", SINGLES)),
        rows=tuple(a_row(router, n) for n in labels for router in routers),
        runs=tuple(
            a_run(router, n, seed, reliability=(bins,) if router == "ours" else ())
            for n in labels
            for router in routers
            for seed in range(2)
        ),
        notes=("Costs are forecast.", "optllm evaluate mmlu/outcomes.parquet --seeds 2"),
    )
    return replace(report, **changes)


class Page(HTMLParser):
    """Every element with its attributes and the text directly and deeply inside it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.stack: list[dict] = []
        self.elements: list[dict] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        inside = [each["tag"] for each in self.stack]
        element = {"tag": tag, "attrs": dict(attrs), "text": "", "inside": inside, "has": []}
        for each in self.stack:
            each["has"].append(tag)
        self.elements.append(element)
        if tag not in VOID:
            self.stack.append(element)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.stack.pop()

    def handle_endtag(self, tag):
        assert self.stack.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self.stack:
            element["text"] += data

    def all(self, tag: str) -> list[dict]:
        return [each for each in self.elements if each["tag"] == tag]

    def rows(self, caption: str) -> list[list[str]]:
        found = next(each for each in self.all("table") if caption in each["text"])
        at = self.elements.index(found)
        rows: list[list[str]] = []
        for each in self.elements[at + 1 :]:
            if each["tag"] in {"table", "section"}:
                break
            if each["tag"] == "tr":
                rows.append([])
            elif each["tag"] in {"td", "th"}:
                rows[-1].append(each["text"])
        return rows


@pytest.fixture(scope="module")
def html() -> str:
    return render_html(a_report())


@pytest.fixture(scope="module")
def page(html) -> Page:
    return Page(html)


def test_every_element_is_closed_in_order(page):
    assert page.stack == []
    assert page.elements[0]["tag"] == "html"


def test_the_title_says_what_was_evaluated_and_how(page):
    header = page.all("header")[0]["text"]

    for fact in ("mmlu/outcomes.parquet", "11,954", "11,800", "text", "forecast", "1,000"):
        assert fact in header
    assert page.all("title")[0]["text"] == "Evaluation of mmlu/outcomes.parquet"


def test_nothing_is_loaded_and_no_script_runs(html, page):
    assert not re.search(r"https?:|//\w|@import|@font-face|javascript:", html, re.IGNORECASE)
    assert page.all("script") == []
    links = [
        value
        for each in page.elements
        for name, value in each["attrs"].items()
        if name in {"src", "href", "srcset", "data", "action", "poster"} and value != "data:,"
    ]
    ids = {f"#{each['attrs']['id']}" for each in page.elements if "id" in each["attrs"]}
    assert links
    assert set(links) <= ids
    assert {f"#{each}" for each in re.findall(r"url\(#([^)]+)\)", html)} <= ids
    assert html.count("url(") == html.count("url(#")
    policy = next(m["attrs"] for m in page.all("meta") if "http-equiv" in m["attrs"])["content"]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_ids_are_unique(page):
    ids = [each["attrs"]["id"] for each in page.elements if "id" in each["attrs"]]

    assert len(ids) == len(set(ids))


def test_whatever_the_data_say_is_text(page):
    known = {each["tag"] for each in page.elements} | {"wbr"}
    evil_bins = Reliability(
        candidate=EVIL, prob=np.array([0.5]), score=np.array([0.5]), n=np.array([9.0])
    )
    evil_figures = {EVIL: Interval(mean=1, low=0, high=2)}
    evil = replace(
        a_report(routers=(EVIL, "b"), labels=(10,)),
        source=EVIL,
        split=EVIL,
        costs=EVIL,
        singles=(Single(candidate=EVIL, score=0.5, cost_usd=1.0),),
        test_singles={10: (Single(candidate=EVIL, score=0.5, cost_usd=1.0),)},
        notes=(EVIL, f"optllm evaluate {EVIL}"),
        rows=(a_row(EVIL, 10, note=EVIL), a_row("b", 10, figures=evil_figures)),
        runs=(a_run(EVIL, 10, 0, note=EVIL, reliability=(evil_bins,)), a_run("b", 10, 0)),
        tables=(ExtraTable(title=EVIL, header=(EVIL, EVIL), rows=((EVIL, EVIL),), note=EVIL),),
    )

    html = render_html(evil)
    page = Page(html)

    assert page.stack == []
    assert page.all("script") == []
    assert "<script" not in html
    assert page.all("h1")[0]["text"] == f"Evaluation of {EVIL}"
    assert {each["tag"] for each in page.elements} <= known
    assert not [name for each in page.elements for name in each["attrs"] if name.startswith("on")]


@settings(max_examples=40, deadline=None)
@given(st.text(), st.text())
def test_any_text_comes_back_from_an_element(text, value):
    html = tag("p", text, title=value)
    html.encode()
    (element,) = Page(html).elements

    kept = re.sub(r"[ \t\r\n\f\v]+", " ", text)
    if kept.isprintable():
        assert element["text"] == kept
    assert set(element["attrs"]) == {"title"}


def test_every_image_has_a_title_and_a_description(page):
    images = page.all("svg")

    assert len(images) == 2 * (2 + len(HEADLINE) + 1)
    for image in images:
        assert image["has"][:2] == ["title", "desc"]
        assert image["attrs"]["role"] == "img"
        named, described = (image["attrs"][f"aria-{by}"] for by in ("labelledby", "describedby"))
        assert {named, described} <= {each["attrs"].get("id") for each in page.elements}


def test_every_figure_has_units_and_n(page):
    figures = page.all("figure")

    assert len(figures) == 2 * (1 + len(HEADLINE) + 1)
    for figure in figures:
        assert re.search(r"n = (8,000|1,066)", figure["text"]), figure["text"][:200]
        assert re.search(r"USD|share of 1|0 to 1|probability", figure["text"])


def test_table_headers_have_a_scope_and_tables_a_caption(page):
    assert all(each["attrs"]["scope"] in {"row", "col"} for each in page.all("th"))
    assert all(each["has"][0] == "caption" for each in page.all("table"))


def test_a_cell_has_the_mean_and_its_interval_and_the_best_is_marked():
    best = a_row("b", 10, figures={"overspend": Interval(mean=0.01, low=0.005, high=0.02)})
    worse = a_row("a", 10, figures={"overspend": Interval(mean=0.5, low=-0.25, high=0.75)})
    oracle = a_row("oracle", 10, figures={"overspend": Interval(mean=0, low=0, high=0)})
    page = Page(render_html(a_report(labels=(10,), rows=(worse, best, oracle), runs=())))

    assert page.rows("Headline figures, 10 labels") == [
        ["router", "overspendshare ↓ lower is better", "seedsn"],
        ["a", "0.500[−0.250, 0.750]", "2"],
        ["b", "best: 0.010[0.005, 0.020]", "2"],
        ["oracle", "0.000[0.000, 0.000]", "2"],
    ]


def test_differences_to_zero_are_signed_and_bold_when_they_leave_out_0():
    against = {
        "overspend": Interval(mean=-0.1, low=-0.2, high=-0.01),
        "budget_area": Interval(mean=0.1, low=-0.1, high=0.3),
    }
    rows = (a_row("a", 10, figures={}, against_zero=against),)
    page = Page(render_html(a_report(labels=(10,), rows=rows, runs=())))

    assert page.rows("Paired differences")[1] == [
        *("a", "+0.100[−0.100, 0.300]", "−0.100[−0.200, −0.010]", "2")
    ]
    assert [each["text"] for each in page.all("b")] == ["−0.100"]


def test_ours_is_compared_with_each_other_router_in_a_table_of_its_own():
    figures = {
        "budget_area": Interval(mean=0.1, low=0.05, high=0.3),
        "overspend": Interval(mean=0.7, low=0.6, high=0.8),
    }
    compared = tuple(
        Against(router=name, n_labelled=10, n_seeds=2, figures=figures, kinds={})
        for name in ("ridge", "zero")
    )
    rows = (a_row("ours", 10, figures={}, against_zero={}),)
    report = a_report(labels=(10,), rows=rows, runs=(), ours_against=compared)
    title = "Paired differences of ours from each other router, 10 labels"

    shown = Page(render_html(report)).rows(title)

    cells = ["+0.100[0.050, 0.300]", "2"]
    assert [["ridge", *cells], ["zero", *cells]] == shown[1:]
    assert title not in render_html(replace(report, ours_against=compared[1:]))


def test_nan_and_absent_figures_show_as_a_dash():
    nan = Interval(mean=math.nan, low=math.nan, high=math.nan)
    bare = Interval(mean=0.25, low=math.nan, high=math.nan)
    rows = (
        a_row("a", 10, figures={"saving_at_best": nan, "overspend": bare}, against_zero={}),
        a_row("b", 10, figures={"saving_at_best": bare}, against_zero={}),
    )
    html = render_html(a_report(labels=(10,), rows=rows, runs=()))

    assert Page(html).rows("Headline figures")[1:] == [
        ["a", "–", "0.250", "2"],
        ["b", "0.250", "–", "2"],
    ]
    assert not re.search(r"\b(nan|inf)\b", html, re.IGNORECASE)


def test_nan_anywhere_never_reaches_a_drawing():
    nan, some = np.full(3, math.nan), np.array([1.0, math.nan, 3.0])
    bins = Reliability(candidate="x", prob=nan, score=nan, n=np.zeros(3))
    runs = (
        a_run("a", 10, 0, drawn=Drawn(cost_usd=nan, score=nan), reliability=(bins,)),
        a_run("b", 10, 0, drawn=Drawn(cost_usd=some, score=some / 4), seconds=math.nan),
    )
    single = Single(candidate="lost", score=math.nan, cost_usd=math.nan)
    report = a_report(labels=(10,), rows=(), runs=runs, singles=(single,), n_test={})

    html = render_html(report)

    assert not re.search(r"\b(nan|inf)\b", html, re.IGNORECASE)
    assert "n = –" in html


@pytest.mark.parametrize(
    "changes",
    [
        {"routers": ("ours",), "labels": (100,)},
        {"routers": ("a", "b"), "singles": ()},
        {"rows": (), "runs": (), "singles": (), "notes": ()},
        {"routers": ("a",), "n_queries": 0, "n_test": {}},
        {
            "routers": ("a",),
            "singles": (Single(candidate="free", score=0.5, cost_usd=0.0), *SINGLES),
        },
    ],
    ids=["one router", "no singles", "nothing", "no queries", "free candidate"],
)
def test_sparse_reports_are_whole_pages(changes):
    html = render_html(a_report(**changes))

    assert Page(html).stack == []
    assert html.startswith("<!doctype html>\n<html")
    assert not re.search(r"\b(nan|inf)\b", html, re.IGNORECASE)


def test_a_curve_of_one_point_is_a_marker():
    point = Drawn(cost_usd=np.array([5.0]), score=np.array([0.6]))
    report = a_report(labels=(10,), rows=(), runs=(a_run("a", 10, 0, drawn=point),))
    page = Page(render_html(report))

    marks = [each for each in page.all("path") if "mark c0" in each["attrs"].get("class", "")]
    assert sum("clippath" not in each["inside"] for each in marks) == 4  # legends included
    assert close_up(fronts_of(report, 10)) is None


def test_without_reliability_there_is_no_such_heading(page):
    bare = a_report(labels=(10,), rows=(), runs=(a_run("ours", 10, 0),))

    assert [h["text"] for h in page.all("h3")].count("Reliability") == 2
    assert "Reliability" not in [h["text"] for h in Page(render_html(bare)).all("h3")]


def test_the_command_stands_in_the_footer_only(page):
    assert page.all("pre")[0]["text"] == "optllm evaluate mmlu/outcomes.parquet --seeds 2"
    assert [li["text"] for li in page.all("li") if "optllm evaluate" in li["text"]] == []
    assert Page(render_html(a_report(notes=("Only a remark.",)))).all("footer") == []


def test_a_new_figure_is_never_lost():
    rows = (a_row("a", 10, figures={"brand_new": Interval(mean=0.5, low=0.4, high=0.6)}),)
    page = Page(render_html(a_report(labels=(10,), rows=rows, runs=())))

    assert page.rows("Further figures")[1] == ["a", "0.500[0.400, 0.600]", "2"]


def test_every_figure_of_the_contract_stands_in_a_table_and_in_the_glossary(page):
    heads = "".join(each["text"] for each in page.all("th"))
    glossary = {row[0]: row[1:] for row in page.rows("What the figures mean")}

    for figure in FIGURES.values():
        assert f"{figure.label}{figure.unit}" in heads
        assert glossary[figure.label][0] == figure.unit
        assert glossary[figure.label][2] == figure.meaning


def test_tables_written_elsewhere_are_shown_as_they_are():
    table = ExtraTable(
        title="Fronts", header=("method", "time, s"), rows=(("exact", "0.1"),), note="Quick."
    )
    page = Page(render_html(a_report(tables=(table,))))

    assert page.rows("Fronts") == [["method", "time, s"], ["exact", "0.1"]]
    assert any(each["text"] == "Quick." for each in page.all("p"))


def test_twelve_routers_look_different_beyond_their_colour():
    looks = looks_of(ROUTERS)

    assert len({(look.dash, look.shape) for look in looks.values()}) == len(ROUTERS)
    assert looks["oracle"].colour == "cx"
    assert [name for name, look in looks.items() if look.is_heavy] == ["ours"]


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_words_and_lines_have_a_contrast_of_at_least_4_5(palette):
    worn = [name for name in palette if name in {"ink", "muted", "link"} or name[0] == "c"]

    assert len(worn) == 14
    for name in worn:
        assert contrast(palette[name], palette["page"]) >= 4.5, name
    assert contrast(palette["muted"], palette["tint"]) >= 4.5
    assert contrast(palette["muted"], palette["panel"]) >= 4.5


def contrast(first: str, second: str) -> float:
    """WCAG 2.2's contrast ratio of two colours."""
    dark, bright = sorted((luminance(first), luminance(second)))
    return (bright + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    shares = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_circles_are_the_candidates_on_the_test_parts_of_their_labels():
    few, many = (
        tuple(replace(each, score=each.score + by, cost_usd=each.cost_usd * by) for each in SINGLES)
        for by in (0.1, 0.2)
    )
    report = a_report(labels=(10, 20), test_singles={10: few, 20: many})

    assert (few, many) == tuple(fronts_of(report, n).singles for n in (10, 20))
    assert fronts_of(report, 10).log
    assert whole_window(fronts_of(report, 10)).holds(few[0])
    circles = [each["text"] for each in Page(render_html(report)).all("circle")]
    assert {"small: score 0.510, $0.0800", "small: score 0.610, $0.160"} <= set(circles)
    assert not any("score 0.410" in each for each in circles)


def test_candidates_are_listed_on_the_whole_table_and_on_the_test_parts():
    tested = {10: (replace(SINGLES[0], score=0.5, cost_usd=0.4),)}
    page = Page(render_html(a_report(labels=(10,), n_queries=16000, test_singles=tested)))

    assert ["small", "0.410", "$0.800", "$0.0500"] in page.rows("16,000 queries, the whole table")
    assert page.rows("on the test part, 10 labels, n = 8,000 queries, 2 seeds") == [
        ["candidate", "mean score (0 to 1)", "total cost, USD", "USD per 1,000 queries"],
        ["small", "0.500", "$0.400", "$0.0500"],
    ]


def test_tables_alone_are_an_inert_page_with_their_notes_and_the_command():
    table = ExtraTable(title="Money", header=("group", EVIL), rows=(("b1", EVIL),), note=EVIL)
    html = render_tables_html(EVIL, [table], notes=("Remark.", "optllm evaluate --store x"))
    page = Page(html)

    assert page.stack == []
    assert page.all("script") == []
    assert "<script" not in html
    assert (EVIL, EVIL) == (page.all("h1")[0]["text"], page.all("title")[0]["text"])
    assert page.rows("Money") == [["group", EVIL], ["b1", EVIL]]
    assert [EVIL] == [each["text"] for each in page.all("p")]
    assert ["Remark."] == [each["text"] for each in page.all("li")]
    assert ["optllm evaluate --store x"] == [each["text"] for each in page.all("pre")]


def test_no_table_at_all_is_still_a_page_that_says_so():
    page = Page(render_tables_html("A log", []))

    assert (page.stack, page.all("footer")) == ([], [])
    assert ["There is no table to show."] == [each["text"] for each in page.all("p")]


def test_the_mean_of_two_curves_lies_between_them_end_to_end():
    low = Drawn(cost_usd=np.array([1.0, 3.0]), score=np.array([0.2, 0.4]))
    high = Drawn(cost_usd=np.array([5.0, 3.0]), score=np.array([0.8, 0.4]))

    mean = mean_curve([low, high], log=False)

    assert (mean.cost_usd[0], mean.cost_usd[-1]) == (2.0, 4.0)
    np.testing.assert_allclose(mean.score, 0.3 + 0.3 * (mean.cost_usd - 2) / 2)
    logs = mean_curve([low, high], log=True).cost_usd
    np.testing.assert_allclose(logs[[0, -1]], [math.sqrt(3), math.sqrt(15)])


def test_the_mean_of_single_points_is_their_middle():
    points = [Drawn(cost_usd=np.array([c]), score=np.array([s])) for c, s in ((1, 0.2), (3, 0.6))]

    mean = mean_curve(points, log=False)

    assert (mean.cost_usd.tolist(), mean.score.tolist()) == ([2.0], [0.4])


def test_bins_of_two_seeds_are_pooled_by_mass():
    first = Reliability(
        candidate="x", prob=np.array([0.2, 0.8]), score=np.array([0.0, 1.0]), n=np.array([10.0, 10])
    )
    second = replace(first, prob=np.array([0.4, 0.6]), score=np.array([0.3, 0.5]))

    both = pooled([first, second])

    np.testing.assert_allclose(both.prob, [0.3, 0.7])
    np.testing.assert_allclose(both.score, [0.15, 0.75])
    assert both.n.tolist() == [20.0, 20.0]
    np.testing.assert_allclose(pooled([first]).prob, first.prob)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (number(-0.0004), "0.000"),
        (number(-0.25, 2), "−0.25"),
        (number(math.inf), "–"),
        (signed(0.5, 1), "+0.5"),
        (usd(0.00213), "$0.00213"),
        (usd(1234.5), "$1,234"),
        (usd(0.0), "$0"),
        (tick_usd(0.5), "$0.50"),
        (tick_usd(0.002), "$0.002"),
        (tick_usd(1000.0), "$1,000"),
        (pixels(-0.001), "0"),
        (pixels(-0.5), "-0.5"),
    ],
)
def test_numbers_are_written_for_readers(written, expected):
    assert expected == written


def test_ticks_are_round_numbers():
    assert linear_ticks(0.303, 0.92, n_ticks=6) == [0.4, 0.6, 0.8]
    assert linear_ticks(-0.01, 0.05, n_ticks=5) == [0.0, 0.02, 0.04]
    assert log_ticks(0.3, 60, n_ticks=10) == [0.5, 1, 2, 5, 10, 20, 50]
    assert log_ticks(1e-6, 1e3, n_ticks=5) == [1e-6, 1e-4, 1e-2, 1.0, 100.0]
    assert log_ticks(2.1, 2.9, n_ticks=4) == [2.2, 2.4, 2.6, 2.8]


finite = st.floats(-1e6, 1e6, allow_nan=False, allow_subnormal=False).map(lambda x: round(x, 6))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(finite, st.just(math.nan)), max_size=8), st.booleans())
def test_a_scale_around_any_values_holds_them_and_has_ticks(values, log):
    shown = [value for value in values if value > 0 or not log]
    low, high = extent(values, log=log)
    scale = Scale(low=low, high=high, start=0, end=500, log=log)

    assert low < high
    assert all(low <= value <= high for value in shown if math.isfinite(value))
    assert 1 <= len(scale.ticks) <= 20
    assert all(-1e-6 <= scale.at(tick) <= 500 + 1e-6 for tick in scale.ticks)


def test_costs_get_a_log_axis_only_when_they_span_much_and_none_is_free():
    assert wants_log([1.0, 8.0])
    assert not wants_log([1.0, 7.9])
    assert not wants_log([0.0, 100.0])
    assert not wants_log([])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-50, 150), min_size=1, max_size=9).map(sorted))
def test_spaced_positions_keep_their_distance_and_their_range(at):
    found = spaced(at, gap=10.0, low=0.0, high=100.0)

    assert all(b - a >= 10 - 1e-6 for a, b in pairwise(found))
    assert -1e-6 <= min(found) <= max(found) <= 100 + 1e-6
    free = all(b - a >= 10 for a, b in pairwise(at))
    if free and min(at) >= 0 and max(at) <= 100:
        np.testing.assert_allclose(found, at, atol=1e-6)


def test_labels_of_crowded_points_do_not_overlap():
    points = [(200.0 + 9 * i, 200.0 + 7 * (i % 3)) for i in range(8)]
    wanted = [Wanted(text=f"candidate-{i}", points=[at], size=11) for i, at in enumerate(points)]

    found = place(wanted, frame=Box(0, 0, 800, 400), taken=[], lines=[])

    boxes = [each.box for each in found if each is not None]
    assert len(boxes) == 8
    assert sum(a.overlap(b) for i, a in enumerate(boxes) for b in boxes[:i]) == 0


def test_a_curves_label_stands_only_where_its_curve_is_the_nearest():
    label = Wanted(text="below", points=[(150.0, 104.0)], size=12, line=1)
    frame = Box(0, 0, 300, 200)

    lines = [np.column_stack([np.arange(0.0, 300, 3), np.full(100, y)]) for y in (100.0, 104, 108)]
    (found,) = place([label], frame=frame, taken=[], lines=lines[:2])
    (hidden,) = place([label], frame=frame, taken=[], lines=lines)

    assert found is not None
    assert found.box.top > 104
    assert hidden is None


def test_long_names_are_cut_to_their_width():
    cut = shortened("router-with-quite-a-long-name-11", size=12, width=100)

    assert cut == "router-…ame-11"
    assert 90 < text_width(cut, 12) <= 100
    assert shortened("short", size=12, width=100) == "short"


def test_a_router_that_is_squeezed_gets_a_second_chart():
    stretched = (*SINGLES, Single(candidate="poor", score=0.0, cost_usd=9.0))
    runs = tuple(
        a_run("ours", 100, 0, drawn=Drawn(cost_usd=np.array([1, 40.0]), score=np.array(score)))
        for score in ([0.6, 0.7],)
    )

    assert close_up(fronts_of(a_report(runs=runs, singles=stretched), 100)) is not None
    assert close_up(fronts_of(a_report(), 100)) is None


def chromium() -> str | None:
    """The browser on the path, or one that Playwright has fetched for somebody."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    cache = Path(
        os.environ.get("PLAYWRIGHT_BROWSERS_PATH", Path.home() / ".cache" / "ms-playwright")
    )
    fetched = sorted(cache.glob("chromium*/chrome-linux*/*chrome*"))
    fetched += sorted(cache.glob("chromium*/chrome-linux*/headless_shell"))
    runnable = [str(path) for path in fetched if path.is_file() and os.access(path, os.X_OK)]
    return next(filter(None, map(shutil.which, names)), next(iter(runnable), None))


PROBE = """<!doctype html><link rel="icon" href="data:,"><title>probe</title>
<iframe src="report.html" width="WIDTH" height="800" style="border:0"></iframe><p></p>
<script>
onload = () => {
  const page = document.querySelector('iframe').contentDocument;
  const root = page.documentElement;
  const images = [...page.querySelectorAll('figure > svg')];
  const shown = images.filter(image => image.getClientRects().length);
  const spilt = shown.flatMap(svg => [...svg.querySelectorAll('text')].filter(text => {
    const [word, image] = [text.getBoundingClientRect(), svg.getBoundingClientRect()];
    return word.left < image.left - 2 || word.right > image.right + 2;
  }));
  document.querySelector('p').textContent = [
    'beyond', root.scrollWidth - root.clientWidth, 'shown', shown.length, 'spilt', spilt.length,
  ].join(' ') + '.';
};
</script>"""


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        self.server.asked.append(self.path)


@pytest.fixture
def served(tmp_path, html) -> Iterator[ThreadingHTTPServer]:
    (tmp_path / "report.html").write_text(html, encoding="utf-8")
    for width in (400, 1400):
        probe = PROBE.replace("WIDTH", str(width))
        (tmp_path / f"probe-{width}.html").write_text(probe, encoding="utf-8")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path)))
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.skipif(chromium() is None, reason="no Chromium on the path or in Playwright's cache")
@pytest.mark.parametrize("width", [400, 1400])
def test_chromium_shows_it_without_errors_and_without_scrolling_sideways(served, tmp_path, width):
    command = [
        str(chromium()),
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--enable-logging=stderr", "--virtual-time-budget=4000", "--window-size=1500,900"),
        *(f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"),
        f"http://127.0.0.1:{served.server_port}/probe-{width}.html",
    ]

    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    assert ran.returncode == 0, ran.stderr[-2000:]
    n_shown = 2 * (1 + len(HEADLINE) + 1)
    assert f"<p>beyond 0 shown {n_shown} spilt 0.</p>" in ran.stdout, ran.stdout[-600:]
    assert "CONSOLE" not in ran.stderr, ran.stderr[-2000:]
    assert served.asked == [f"/probe-{width}.html", "/report.html"]
