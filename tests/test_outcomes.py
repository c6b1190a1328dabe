"""Files of outcomes and of queries: what is read, and what is refused, with the lines."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from optllm_router.errors import ConfigError
from optllm_router.outcomes import (
    ImportReport,
    check_outcomes,
    read_outcomes,
    read_requests,
    sample,
    select,
)

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
ROWS = [
    {"query_id": "q1", "task": "sum", "query": "1+1?", "model": "small", "score": 1.0},
    {"query_id": "q1", "task": "sum", "query": "1+1?", "model": "big", "score": 0.5},
    {"query_id": "q2", "task": "say", "query": 'Hé, \n"x"', "model": "big", "score": 0.0},
]
MORE = [
    {
        "cost_usd": 0.001,
        "prompt_tokens": 3,
        "completion_tokens": None,
        "answer": "2",
        "reference": "2",
    },
    {
        "cost_usd": 0.01,
        "prompt_tokens": 4,
        "completion_tokens": 9,
        "answer": "3",
        "reference": None,
    },
    {
        "cost_usd": None,
        "prompt_tokens": None,
        "completion_tokens": 1,
        "answer": None,
        "reference": None,
    },
]
FULL = [{**row, **more} for row, more in zip(ROWS, MORE, strict=True)]


def write_parquet(path: Path, rows: list[dict]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


def write_csv(path: Path, rows: list[dict]) -> None:
    def cell(value: object) -> str:
        return "" if value is None else '"' + str(value).replace('"', '""') + '"'

    lines = [",".join(rows[0]), *(",".join(map(cell, row.values())) for row in rows)]
    path.write_bytes("\r\n".join(lines).encode())


def write_jsonl(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


WRITERS = {"parquet": write_parquet, "csv": write_csv, "jsonl": write_jsonl, "ndjson": write_jsonl}


@pytest.fixture(params=WRITERS)
def write(request, tmp_path):
    def write_file(rows: list[dict]) -> Path:
        path = tmp_path / f"table.{request.param}"
        WRITERS[request.param](path, rows)
        return path

    return write_file


@pytest.fixture
def write_text(tmp_path):
    def write_file(name: str, text: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write_file


def refusal(read, path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(path)
    return str(caught.value).replace(str(path), path.name).split("\n")


def test_every_form_gives_the_same_table(write):
    table = read_outcomes(write(FULL))

    assert table.query_ids == ["q1", "q2"]
    assert table.tasks == ["sum", "say"]
    assert table.queries == ["1+1?", 'Hé, \n"x"']
    assert table.models == ["small", "big"]
    assert table.references == ["2", None]
    nan = np.nan
    np.testing.assert_array_equal([[1.0, 0.5], [nan, 0.0]], table.score)
    np.testing.assert_array_equal([[0.001, 0.01], [nan, nan]], table.cost_usd)
    np.testing.assert_array_equal([[3, 4], [-1, -1]], table.prompt_tokens)
    np.testing.assert_array_equal([[-1, 9], [-1, 1]], table.completion_tokens)
    assert table.answers.tolist() == [["2", "3"], [None, None]]
    assert (table.n_queries, table.n_models) == (2, 2)
    assert [each.dtype for each in (table.score, table.cost_usd)] == [np.float64] * 2
    assert [each.dtype for each in (table.prompt_tokens, table.completion_tokens)] == [np.int64] * 2


def test_only_query_model_and_score_are_needed(write):
    rows = [
        {"query": "a", "model": "m", "score": 1},
        {"query": "b", "model": "m", "score": 0},
        {"query": "a", "model": "n", "score": 1},
    ]

    table = read_outcomes(write(rows))

    assert table.query_ids == ["1", "2"]
    assert (table.tasks, table.references) == (["", ""], [None, None])
    assert table.answers is None
    np.testing.assert_array_equal([[1.0, 1.0], [0.0, np.nan]], table.score)
    assert np.isnan(table.cost_usd).all()
    assert (table.prompt_tokens == -1).all()


def test_without_ids_the_same_text_in_two_tasks_is_two_queries(write):
    rows = [
        {"query": "a", "task": "x", "model": "m", "score": 1},
        {"query": "a", "task": "y", "model": "m", "score": 0},
    ]

    assert read_outcomes(write(rows)).tasks == ["x", "y"]


def test_numbers_may_be_identifiers_without_losing_digits(write):
    rows = [
        {"query_id": 2**60 + at, "query": f"q{at}", "model": "m", "score": 1} for at in range(2)
    ]

    assert read_outcomes(write(rows)).query_ids == [str(2**60), str(2**60 + 1)]


def test_booleans_are_scores(tmp_path):
    rows = [
        {"query": "a", "model": "m", "score": True},
        {"query": "b", "model": "m", "score": False},
    ]
    for form in ("parquet", "jsonl"):
        path = tmp_path / f"t.{form}"
        WRITERS[form](path, rows)

        assert read_outcomes(path).score.tolist() == [[1.0], [0.0]]


def test_an_empty_score_is_an_ungraded_answer(write):
    rows = [*FULL, {**FULL[2], "model": "small", "score": None}]

    table, report = check_outcomes(write(rows))

    assert np.isnan(table.score[1, 0])
    assert (report.n_ungraded, report.n_missing) == (1, 0)


def test_the_report_counts_and_sums(write):
    path = write(FULL)

    _, report = check_outcomes(path)

    assert report.to_dict() == {
        "path": str(path),
        "n_rows": 3,
        "n_queries": 2,
        "n_models": 2,
        "n_tasks": 2,
        "n_missing": 1,
        "n_ungraded": 0,
        "n_imported": 0,
        "mean_score": {"small": 1.0, "big": 0.25},
        "cost_usd": {"small": 0.001, "big": 0.01},
        "unknown_columns": [],
        "unknown_models": [],
        "remarks": [],
        "problems": [],
    }
    assert json.loads(json.dumps(report.to_dict())) == report.to_dict()
    assert str(report) == (
        f"{path}: 3 rows, 2 queries, 2 models, 2 tasks, 1 pairs missing, 0 ungraded\n"
        "  small: mean score 1.0000, cost 0.001 USD\n"
        "  big: mean score 0.2500, cost 0.01 USD"
    )


@pytest.mark.parametrize(
    ("amount", "told"),
    [
        (None, "unknown"),
        (0.0, "0.00 USD"),
        (1.23456e-7, "0.000000123 USD"),
        (0.0123456, "0.0123 USD"),
        (0.999, "0.999 USD"),
        (1234.5678, "1234.57 USD"),
    ],
)
def test_a_reports_costs_keep_their_first_digits(amount, told):
    report = ImportReport(path="t", n_rows=1, mean_score={"m": 0.5}, cost_usd={"m": amount})

    assert str(report).endswith(f"m: mean score 0.5000, cost {told}")


def test_unknown_columns_and_models_are_remarks(write):
    rows = [{**row, "note": "x"} for row in FULL]

    table, report = check_outcomes(write(rows), candidates=["big", "other"])

    assert table is not None
    assert report.unknown_columns == ("note",)
    assert report.unknown_models == ("small",)
    assert report.remarks == (
        "columns that are not read: note",
        "models that are no candidates: small",
    )


def test_a_file_without_any_candidate_is_refused(write):
    path = write(FULL)

    assert refusal(lambda file: read_outcomes(file, candidates=["x", "y"]), path) == [
        (
            f"'{path.name}': none of its models (small, big) is a candidate (x, y): rename "
            "them in the "
            "file, or set each candidate's `name` to the model's name in the file"
        )
    ]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"score": 1.5}, "`score` must be a number from 0 to 1, or empty where unknown"),
        ({"score": -0.5}, "`score` must be a number from 0 to 1, or empty where unknown"),
        ({"cost_usd": -1.0}, "`cost_usd` must be a number of at least 0, or empty where unknown"),
        (
            {"completion_tokens": -2},
            "`completion_tokens` must be a whole number of at least 0, or empty where unknown",
        ),
    ],
)
def test_a_value_outside_its_range_names_the_row(tmp_path, change, rule):
    rows = [FULL[0], {**FULL[1], **change}, FULL[2]]
    for form, place in (("parquet", "row 2"), ("csv", "line 3"), ("jsonl", "line 2")):
        path = tmp_path / f"t.{form}"
        WRITERS[form](path, rows)

        lines = refusal(read_outcomes, path)

        assert len(lines) == 1
        assert lines[0].startswith(f"'t.{form}': {rule}: 1 of 3 rows break this, {place} (")


@pytest.mark.parametrize("value", ["nan", "inf", "good"])
def test_a_score_that_is_no_number_is_refused_with_its_line(write_text, value):
    path = write_text("t.csv", f'query,model,score\n"a\nb",m,1\nc,m,{value}\n')

    assert refusal(read_outcomes, path) == [
        (
            "'t.csv': `score` must be a number from 0 to 1, or empty where unknown: 1 of 2 "
            "rows break "
            f"this, line 4 ({value!r})"
        )
    ]


def test_nan_in_parquet_is_no_score(tmp_path):
    path = tmp_path / "t.parquet"
    write_parquet(path, [{**FULL[0], "score": float("nan")}, FULL[1]])

    assert refusal(read_outcomes, path) == [
        (
            "'t.parquet': `score` must be a number from 0 to 1, or empty where unknown: 1 of "
            "2 rows "
            "break this, row 1 (nan)"
        )
    ]


def test_json_values_of_the_wrong_kind_are_refused(write_text):
    rows = [
        {"query": ["a"], "model": "m", "score": 1},
        {"query": "b", "model": None, "score": [1]},
        {"query": "c", "model": "m", "score": 10**400},
    ]
    path = write_text("t.jsonl", "\n".join(json.dumps(row) for row in rows))

    lines = refusal(read_outcomes, path)

    assert lines[0].startswith("'t.jsonl': `score` must be a number from 0 to 1, or empty where ")
    assert "2 of 3 rows break this, lines 2, 3 ([1], 1000" in lines[0]
    assert lines[1:] == [
        "'t.jsonl': `query` must be a text: 1 of 3 rows break this, line 1 (['a'])",
        "'t.jsonl': `model` must be a text: 1 of 3 rows break this, line 2 (None)",
    ]


def test_all_problems_are_named_and_only_the_first_rows_listed(write_text):
    rows = "".join(f"q{at},m,7,x\n" for at in range(12))
    path = write_text("t.csv", f"query,model,score,cost_usd\n{rows}")

    assert refusal(read_outcomes, path) == [
        (
            "'t.csv': `score` must be a number from 0 to 1, or empty where unknown: 12 of 12 rows "
            "break this, lines 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 2 more "
            f"({', '.join([repr('7')] * 10)}, ...)"
        ),
        (
            "'t.csv': `cost_usd` must be a number of at least 0, or empty where unknown: 12 "
            "of 12 rows "
            "break this, lines 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 2 more "
            f"({', '.join([repr('x')] * 10)}, ...)"
        ),
    ]


def test_the_same_pair_twice_is_refused(write):
    path = write([*FULL, FULL[0]])

    (line,) = refusal(read_outcomes, path)

    assert line.startswith(
        f"'{path.name}': the same query and model stand in an earlier row; keep one of them: "
        "1 of 4 "
        "rows break this, "
    )


def test_rows_of_one_query_must_agree(write_text):
    path = write_text(
        "t.csv",
        "query_id,query,task,model,score,reference\n"
        "1,a,x,m,1,r\n1,b,x,n,1,\n2,c,x,m,1,r\n2,c,y,n,1,r\n3,d,x,m,1,r\n3,d,x,n,1,s\n",
    )

    assert refusal(read_outcomes, path) == [
        (
            "'t.csv': another `query` than in an earlier row of the same `query_id`: 1 of 6 "
            "rows break "
            "this, line 3"
        ),
        (
            "'t.csv': another `task` than in an earlier row of the same `query_id`: 1 of 6 "
            "rows break "
            "this, line 5"
        ),
        (
            "'t.csv': another `reference` than in an earlier row of the same query: 1 of 6 "
            "rows break "
            "this, line 7"
        ),
    ]


def test_a_table_without_any_score_is_refused(write_text):
    path = write_text("t.csv", "query,model,score\na,m,\nb,m,\n")

    assert refusal(read_outcomes, path) == [
        "'t.csv': no row has a `score`: there is nothing to learn from"
    ]


def test_a_missing_column_names_the_nearest_one(write_text):
    path = write_text("t.csv", "querry,model\na,m\n")

    table, report = check_outcomes(path)

    assert table is None
    assert report.problems == (
        (
            "column `query` is missing: is it `querry`? Rename that column (found `querry`, "
            "`model`; "
            "needed are `query`, `model`, `score`)"
        ),
        "column `score` is missing (found `querry`, `model`; needed are `query`, `model`, `score`)",
    )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "", "'t.csv' is empty: it needs a line per row"),
        ("t.csv", "\ufeff \n", "'t.csv' is empty: it needs a line per row"),
        ("t.jsonl", "\n\n", "'t.jsonl' is empty: it needs a line per row"),
        (
            "t.csv",
            "query,model,score\n",
            "'t.csv' has no rows: it needs at least one below its header",
        ),
        (
            "t.csv",
            "query,model,score\n\n",
            "'t.csv' has no rows: it needs at least one below its header",
        ),
        (
            "t.csv",
            "query,model,score\na,m,1\nb,m\nc,m,1,2\n",
            (
                "'t.csv': not 3 cells as in the header: lines 3, 4: quote cells that contain "
                "commas or "
                "line breaks"
            ),
        ),
        (
            "t.csv",
            "query,model,query,score\na,m,b,1\n",
            "'t.csv' line 1: column `query` stands twice: rename one of them",
        ),
        (
            "t.csv",
            'query,model,score\n"a"b,m,1\n',
            "'t.csv' line 2: not CSV: ',' expected after '\"'",
        ),
        (
            "t.csv",
            b"query,model,score\ncaf\xe9,m,1\n",
            "'t.csv' line 2: not UTF-8 text: save it as UTF-8",
        ),
        (
            "t.jsonl",
            '{"query": "a"}\nnope\n{"query"\n',
            "'t.jsonl': not JSON, one value per line: lines 2, 3",
        ),
        ("t.jsonl", '{"query": "a"}\n[1]\n', "'t.jsonl': not a JSON object: line 2"),
        (
            "t.xlsx",
            "x",
            "'t.xlsx': files ending in '.xlsx' are not read: write .parquet, .csv or .jsonl",
        ),
    ],
)
def test_a_file_of_the_wrong_form_is_refused(write_text, name, text, message):
    assert refusal(read_outcomes, write_text(name, text)) == [message]


@pytest.mark.parametrize("name", [".", "t.csv", "t.parquet"])
def test_a_folder_is_refused_whatever_its_name(tmp_path, name):
    (tmp_path / name).mkdir(exist_ok=True)

    (told,) = refusal(read_outcomes, tmp_path / name)
    assert told == (
        f"'{(tmp_path / name).name}' is a folder, not a file: name a file in it that ends in "
        ".parquet, .csv or .jsonl"
    )


@pytest.mark.parametrize("name", ["no.csv", "no.jsonl", "no.parquet"])
def test_a_missing_file_is_named(tmp_path, name):
    assert refusal(read_outcomes, tmp_path / name) == [f"there is no file '{name}': check its path"]


def test_a_file_that_is_no_parquet_is_refused(write_text):
    (line,) = refusal(read_outcomes, write_text("t.parquet", "not parquet at all"))

    assert line.startswith("'t.parquet' cannot be read as parquet: ")


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    path = tmp_path / "t.parquet"
    write_parquet(path, FULL)
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    assert refusal(read_outcomes, path) == [
        (
            "'t.parquet': reading parquet needs pyarrow, which is not installed: pip install "
            "'optllm-router[evaluate]', or save the table as CSV or JSONL"
        )
    ]


def test_byte_order_mark_is_no_part_of_the_first_column(write_text):
    path = write_text("t.csv", b"\xef\xbb\xbfquery,model,score\r\na,m,1\r\n")

    assert read_outcomes(path).queries == ["a"]


def test_long_emoji_and_nul_texts_survive(write):
    text = "😀\x00" + "x" * 1_000_000

    assert read_outcomes(write([{"query": text, "model": "m", "score": 1}])).queries == [text]


def test_unusual_line_separators_inside_json_texts_are_text(write_text):
    row = json.dumps({"query": "a\u2028b\x0bc", "model": "m", "score": 1}, ensure_ascii=False)

    assert read_outcomes(write_text("t.jsonl", row)).queries == ["a\u2028b\x0bc"]


def test_dictionary_and_decimal_columns_are_read(tmp_path):
    from decimal import Decimal

    table = pa.table(
        {
            "query": pa.array(["a", "a"]).dictionary_encode(),
            "model": pa.array(["m", "n"]).dictionary_encode(),
            "score": pa.array([Decimal("0.5"), None], pa.decimal128(5, 2)),
            "cost_usd": pa.array([1, None], pa.int32()),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")

    read = read_outcomes(tmp_path / "t.parquet")

    np.testing.assert_array_equal([[0.5, np.nan]], read.score)
    np.testing.assert_array_equal([[1.0, np.nan]], read.cost_usd)


def test_select_keeps_the_order_asked_for(write):
    table = select(read_outcomes(write(FULL)), np.array([1, 0]))

    assert (table.query_ids, table.references) == (["q2", "q1"], [None, "2"])
    np.testing.assert_array_equal([[np.nan, 0.0], [1.0, 0.5]], table.score)
    assert table.answers.tolist() == [[None, None], ["2", "3"]]


def test_a_sample_is_seeded_without_repetition_and_nested(write_text):
    rows = "".join(f"q{at},m,1\n" for at in range(100))
    table = read_outcomes(write_text("t.csv", f"query,model,score\n{rows}"))

    few = sample(table, 10, np.random.default_rng(3))
    more = sample(table, 30, np.random.default_rng(3))

    assert len(set(few.queries)) == 10
    assert few.queries == more.queries[:10]
    assert few.queries != sample(table, 10, np.random.default_rng(4)).queries
    assert sorted(sample(table, 1000, np.random.default_rng(0)).queries) == sorted(table.queries)
    assert few.score.shape == (10, 1)


def test_a_sample_of_none_is_refused(write):
    with pytest.raises(ConfigError, match="a sample needs at least one query"):
        sample(read_outcomes(write(FULL)), 0, np.random.default_rng(0))


def asking(text: str, **arguments: object) -> dict:
    return {"messages": [{"role": "user", "content": text}], **arguments}


def test_text_files_hold_one_query_per_line(write_text):
    path = write_text(
        "q.txt", b"\xef\xbb\xbffirst\r\n\r\n second, line \r\n  \nlast\xe2\x80\xa8one"
    )

    assert read_requests(path) == [
        asking("first"),
        asking(" second, line "),
        asking("last\u2028one"),
    ]


def test_csv_queries_take_task_and_reference(write_text):
    path = write_text("q.csv", 'id,query,task,reference\n1,"a, b",sum,2\n2,c,,\n')

    assert read_requests(path) == [asking("a, b", task="sum", reference="2"), asking("c")]


def test_json_lines_take_texts_messages_and_objects(write_text):
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    lines = [
        "plain",
        messages,
        {"messages": messages, "task": "t", "max_tokens": 5, "tools": None},
        {"query": "q", "task": "t", "reference": "r", "tags": ["x"], "id": 7, "score": 1},
        {"query": ""},
    ]
    path = write_text("q.jsonl", "\n".join(json.dumps(line) for line in lines))

    assert read_requests(path) == [
        asking("plain"),
        {"messages": messages},
        {"messages": messages, "task": "t", "max_tokens": 5},
        asking("q", task="t", reference="r", tags=["x"]),
        asking(""),
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("q.txt", "", "'q.txt' is empty: it needs a line per row"),
        ("q.txt", b"caf\xe9", "'q.txt' line 1: not UTF-8 text: save it as UTF-8"),
        (
            "q.csv",
            "querry\na\n",
            "'q.csv' line 1: column `query` is missing: is it `querry`? Rename it",
        ),
        (
            "q.csv",
            "query,task\na,x\n,y\n",
            "'q.csv': `query` is empty: line 3: fill or remove it",
        ),
        ("q.csv", "query\n", "'q.csv' has no rows: it needs at least one below its header"),
        ("q.jsonl", '"a"\n{', "'q.jsonl': not JSON, one value per line: line 2"),
        (
            "q.jsonl",
            '"a"\n3\n{"qery": "x"}\n{"query": 1}\n[]\n{"query": "x", "messages": []}\n[{"a": 1}]',
            (
                "'q.jsonl': no query: lines 2, 3, 4, 5, 6, 7: is it `qery`? Rename it: a line is a "
                'text, a list of messages, {"messages": [...]}, or {"query": "...", "task": ..., '
                '"reference": ...}'
            ),
        ),
        (
            "q.parquet",
            "x",
            "'q.parquet': files ending in '.parquet' are not read: write .jsonl, .csv or .txt",
        ),
    ],
)
def test_a_file_of_queries_of_the_wrong_form_is_refused(write_text, name, text, message):
    assert refusal(read_requests, write_text(name, text)) == [message]


@pytest.mark.parametrize("name", [".", "q.txt", "q.csv"])
def test_a_folder_of_queries_is_refused(tmp_path, name):
    (tmp_path / name).mkdir(exist_ok=True)

    (told,) = refusal(read_requests, tmp_path / name)
    assert told == (
        f"'{(tmp_path / name).name}' is a folder, not a file: name a file in it that ends in "
        ".jsonl, .csv or .txt"
    )


def test_a_missing_file_of_queries_is_named(tmp_path):
    assert refusal(read_requests, tmp_path / "q.txt") == [
        "there is no file 'q.txt': check its path"
    ]


@pytest.mark.data
@pytest.mark.skipif(not DATA.exists(), reason="the recorded tables are not beside the project")
@pytest.mark.parametrize("name", ["logpai", "mmlu_pro", "llmdrift"])
def test_recorded_tables_are_read_cell_by_cell_in_time(name):
    path = DATA / name / "outcomes.parquet"

    begin = time.perf_counter()
    table, report = check_outcomes(path)
    elapsed_s = time.perf_counter() - begin

    raw = pq.read_table(path)
    rows = raw.num_rows
    assert table.n_queries * table.n_models == rows == report.n_rows
    assert report.remarks == ()
    query = np.array(raw["query_id"].to_pylist())[:: table.n_models]
    assert table.query_ids == query.tolist()
    assert table.models == raw["model"].to_pylist()[: table.n_models]
    np.testing.assert_array_equal(raw["score"].to_numpy(), table.score.ravel())
    np.testing.assert_array_equal(raw["cost_usd"].to_numpy(), table.cost_usd.ravel())
    tokens = raw["completion_tokens"].fill_null(-1).to_numpy()
    np.testing.assert_array_equal(tokens, table.completion_tokens.ravel())
    assert raw["answer"].to_pylist() == table.answers.ravel().tolist()
    assert raw["reference"].to_pylist()[:: table.n_models] == table.references
    assert elapsed_s < 6.0  # measured 1.2 s for the largest; room for a busy machine
