"""`optllm.toml` → one frozen `Config`: argument before environment before file before default.

`settings` says what may be set, `values` how single values are read, `sources` where they come
from, `load` puts them together, `problems` explains every mistake at once, `lines` finds where in
the file a key stands, and `starter` writes a first file.
"""

from optllm_router.config.load import (
    budget_lines,
    build_policy,
    cap_lines,
    load_config,
    make_config,
)
from optllm_router.config.settings import (
    BudgetSettings,
    CallSettings,
    CandidateSettings,
    Config,
    GraderSettings,
    MatchSettings,
    PolicySettings,
    PredictorSettings,
    RetrainSettings,
)
from optllm_router.config.sources import ENVIRONMENT
from optllm_router.config.starter import starter_toml

__all__ = [
    "ENVIRONMENT",
    "BudgetSettings",
    "CallSettings",
    "CandidateSettings",
    "Config",
    "GraderSettings",
    "MatchSettings",
    "PolicySettings",
    "PredictorSettings",
    "RetrainSettings",
    "budget_lines",
    "build_policy",
    "cap_lines",
    "load_config",
    "make_config",
    "starter_toml",
]
