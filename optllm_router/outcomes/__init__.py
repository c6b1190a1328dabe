"""Files of the user's own data: outcome tables (query × model → score, cost) and queries to ask.

`columns` reads parquet, CSV and JSONL into columns, `check` judges them and builds an
`OutcomeTable` (`table`), `requests` reads the queries for a run. Nothing is guessed: a file with
mistakes is refused whole, with the lines where they stand.
"""

from optllm_router.outcomes.check import ImportReport, check_outcomes, read_outcomes
from optllm_router.outcomes.requests import read_requests
from optllm_router.outcomes.table import OutcomeTable, sample, select

__all__ = [
    "ImportReport",
    "OutcomeTable",
    "check_outcomes",
    "read_outcomes",
    "read_requests",
    "sample",
    "select",
]
