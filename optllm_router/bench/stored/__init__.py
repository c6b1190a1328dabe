"""What a log says of its own graded decisions, and what it cannot say.

A log of served calls knows the outcome of what was asked and of nothing else. What it costs and how
it was graded is counted here exactly; a comparison with a candidate that was not asked is made only
where every query of the group has that candidate's outcome, and otherwise listed as not supported.
The rooms:

    records      the report
    reading      the log, page by page, into a few numbers per decision
    resampling   intervals over distinct texts
    groups       one row per served batch and per other group: counts, money, grades
    comparing    always one candidate: on a group's queries, and on queries that all were asked
    forecasts    what was expected against what was graded and billed
    report       the whole
    tables       the report in words, for the terminal and the HTML page
"""

from optllm_router.bench.stored.records import (
    Comparison,
    Forecast,
    FullInformation,
    Group,
    StoredReport,
)
from optllm_router.bench.stored.report import stored_report
from optllm_router.bench.stored.tables import stored_tables

__all__ = [
    "Comparison",
    "Forecast",
    "FullInformation",
    "Group",
    "StoredReport",
    "stored_report",
    "stored_tables",
]
