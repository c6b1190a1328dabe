"""Graders: an answer's text, with or without a reference, → a score in [0, 1].

A grader never guesses: where it needs a reference and there is none, it returns None and the
answer stays ungraded. Only answers are graded; a call that failed is the provider's fault and says
nothing about quality. `contract` says what a grader is; `rules` and `functions` hold the kinds,
`configured` builds the ones that a config asks for.
"""

from optllm_router.grading.configured import Graders, grader_from_config, graders_from_config
from optllm_router.grading.contract import Grader, as_reference, check_score
from optllm_router.grading.functions import CallableGrader, as_grader
from optllm_router.grading.rules import (
    Contains,
    Exact,
    JsonSchema,
    Normalise,
    Regex,
    check_reference,
    normaliser,
)

__all__ = [
    "CallableGrader",
    "Contains",
    "Exact",
    "Grader",
    "Graders",
    "JsonSchema",
    "Normalise",
    "Regex",
    "as_grader",
    "as_reference",
    "check_reference",
    "check_score",
    "grader_from_config",
    "graders_from_config",
    "normaliser",
]
