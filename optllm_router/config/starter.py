"""The first `optllm.toml`, as `optllm init` writes it: it works as it is, and explains itself."""

from __future__ import annotations

import json
from collections.abc import Sequence

from optllm_router.errors import ConfigError

_STARTER = """\
# Settings of optllm_router. Arguments in code win over OPTLLM_* variables, those over this file.
store = "sqlite:///optllm.db"
default = {default}    # answers while there is nothing learned, and when we cannot decide
route_models = []    # calls naming these (and "auto") are routed; other names are called as given
mode = "route"       # or "shadow": call what was asked, log what we would have done
prompts = "features" # what is kept of a text: none | hash | features | full
# embedder = "my_module:embed" # texts to vectors, by your own model; forests do not look at them

[policy]             # where to stand between the cheapest and the most accurate
kind = "knee"
# kind = "budget"             # with usd = 5.00 and per = "day" (or "call", "batch", "month", ...)
# kind = "target_accuracy"    # with accuracy = 0.9
# kind = "willingness_to_pay" # with usd_per_success = 0.02
# kind = "fixed"              # with column = {default}; also: cheapest, most_accurate

[retrain]            # whichever comes first
every_outcomes = 200
every = "24h"
min_labels = 50      # graded outcomes before anything is routed

# [calls]            # how long a call may take, and how often it is tried
# timeout = "20m"
# attempt_timeout = "10m"
# max_attempts = 4
# reserve_timeout = "30s" # for money that other calls have set aside

# [[budgets]]        # caps that bind whatever the policy, shared by all processes on the store
# name = "team-a"
# match = {{ tag = "team-a" }} # or task, or candidate; without it, everything
# usd = 100
# per = "month"      # call | batch | session | hour | day | week | month | total
# timezone = "UTC"   # or rolling = true
# at_cap = "degrade" # or "refuse", or "cheapest_free": only what costs nothing

# [graders.default]  # scores answers by rule: exact | contains | regex | json_schema | callable
# kind = "exact"
"""

_CANDIDATE = """
[[candidates]]
model = {model}
max_output_tokens = 2048    # sent when the caller gave no limit, so that worst cases are true
"""

_FIRST_CANDIDATE = """\
# api_key_env = "OPENAI_API_KEY"   # where the key is, when it is not where LiteLLM looks
# api_base = "http://localhost:8000/v1"
# max_concurrency = 8              # calls at once; also requests_per_minute
# input_usd_per_1m = 0.15          # only for models that LiteLLM's model map does not price
# output_usd_per_1m = 0.60
"""


def starter_toml(
    candidates: Sequence[str] = ("openai/gpt-4o-mini", "openai/gpt-4o"),
) -> str:
    """Return the text of a first config file; the last candidate becomes the default.

    Args:
        candidates: LiteLLM model names, from cheap to good.

    Raises:
        ConfigError: there is no candidate, or one appears twice.
    """
    if not candidates or len(set(candidates)) < len(candidates):
        raise ConfigError(
            f"candidates {list(candidates)!r}: name at least one model, and each only once, "
            "such as openai/gpt-4o-mini openai/gpt-4o"
        )
    models = [_quoted(model) for model in candidates]
    tables = [_CANDIDATE.format(model=model) for model in models]
    tables[0] += _FIRST_CANDIDATE
    return _STARTER.format(default=models[-1]) + "".join(tables)


def _quoted(text: str) -> str:
    """Write a TOML basic string; JSON's escapes are among TOML's."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
