"""Remarks on a set-up: what is missing or weak, each with the way out."""

from __future__ import annotations

import os
from collections.abc import Iterator

from optllm_router.config import Config
from optllm_router.core.snapshot import Snapshot
from optllm_router.dispatch.deciding import RouterState
from optllm_router.dispatch.embedding import Embeddings, foreign_to
from optllm_router.store.base import Store


def remarks(
    config: Config, state: RouterState, store: Store, embeddings: Embeddings | None
) -> list[str]:
    """Return remarks on candidates, labels, embeddings, privacy and grading; none is good."""
    return [
        *_candidates(config, state),
        *_labels(config, state, store),
        *_embeddings(config, state, embeddings),
        *_privacy(config),
    ]


def _candidates(config: Config, state: RouterState) -> Iterator[str]:
    for candidate in state.candidates:
        if candidate.api_key_env and candidate.api_key_env not in os.environ:
            yield f"{candidate.name}: the environment variable {candidate.api_key_env} is not set"
    if len(state.candidates) == 1:
        yield "there is one candidate only: nothing to choose between"
    names = {candidate.name for candidate in state.candidates}
    for budget in config.budgets:
        if budget.scope == "candidate" and budget.value not in names:
            yield (
                f"the budget {budget.name!r} matches {budget.value!r}, which is no candidate: it "
                "binds only pins of that name"
            )
    if not config.route_models:
        yield "`route_models` is empty: only calls with model='auto' are routed"


def _labels(config: Config, state: RouterState, store: Store) -> Iterator[str]:
    if state.snapshot is None:
        yield f"{state.unfit_reason}: `probe`, `import` or `feedback`, then `retrain`"
        return
    yield from _unlabelled(state, state.snapshot, store)
    if state.snapshot.kind != config.predictor.kind:
        yield (
            f"the published predictor is a {state.snapshot.kind}, the settings say "
            f"{config.predictor.kind!r}: the next refit brings it, or `retrain`"
        )
    if store.current_predictor() != state.snapshot.version:
        yield "a newer predictor is published and will be taken over shortly"


def _embeddings(config: Config, state: RouterState, embeddings: Embeddings | None) -> Iterator[str]:
    foreign = foreign_to(embeddings, state.snapshot)
    if foreign is not None:
        yield foreign
    if embeddings is None:
        return
    if config.predictor.kind == "forest":
        yield "`embedder` is set, but forests do not look at embeddings"
    elif state.snapshot is not None and not state.snapshot.predictor.n_dimensions_:
        yield "the published predictor does not look at these embeddings: the next refit may"
    if embeddings.n_missed:
        yield (
            f"the embedder failed or took too long for {embeddings.n_missed} texts, which were "
            "routed without embeddings: see the log"
        )
    if state.privacy.keeps_features:
        yield (
            "the log keeps embeddings, which no key protects: whoever holds it and the embedder "
            'can guess texts from them; prompts = "hash" keeps none'
        )


def _unlabelled(state: RouterState, snapshot: Snapshot, store: Store) -> Iterator[str]:
    """Candidates of which the published predictor has no label, and whether the log has."""
    n_labels = dict(zip(snapshot.columns, snapshot.predictor.n_labels_.tolist(), strict=True))
    names = [c.name for c in state.candidates if not n_labels.get(c.name)]
    for name in names:
        if store.training_rows(limit=1, graded_of=name):
            yield (
                f"{name}: its labels are newer than the published predictor, so it is not offered "
                "yet; `retrain`"
            )
        else:
            yield f"{name}: no label yet, so it is not offered; `probe` it"


def _privacy(config: Config) -> Iterator[str]:
    if config.prompts in {"none", "hash"}:
        yield f"prompts = {config.prompts!r}: the own log refits on `task` only, not on the text"
    if config.prompts != "none" and not config.feature_key:
        yield (
            "OPTLLM_FEATURE_KEY is not set: text hashes and features are not keyed, so whoever "
            "holds the log can test whether a known text is in it"
        )
    if not config.graders:
        yield "no graders are configured: outcomes come from `feedback`, `probe` and `import` only"
