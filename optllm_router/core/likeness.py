"""Which known columns a new one is taken to be like, before it has a single label.

By its name and its price, the two things that are known of an LLM that nobody has asked yet: names
of one family share words (gpt, llama, mini), and what costs about the same is usually about as
able. What is dearer is usually better, by `PRICE_TREND` for every factor e of price. Half of the
weight stays even, since a likeness of names and prices can mislead.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from optllm_router.records import Floats

EVEN_SHARE = 0.5
PRICE_SCALE = 1.0  # natural logarithms: the standard deviation of the kernel
PRICE_TREND = 0.1  # of score, per natural logarithm
FREE = 0.1  # of the cheapest price above 0: what a price of 0 counts as

_WORD = re.compile(r"[a-z]+|[0-9]+(?:[._][0-9]+)*")


@dataclass(frozen=True, slots=True, eq=False)
class Likeness:
    """A new column is taken to score as the mean of known ones by `mix`, plus `shift`.

    `mix` is (n_known,), not negative, and sums to 1.
    """

    mix: Floats
    shift: float


def likeness(name: str, usd: float, known: Sequence[str], known_usd: Floats) -> Likeness:
    """Weigh known columns by how like a new one they are.

    Args:
        name: the new column's name.
        usd: what it is expected to cost per query; NaN where nothing is known, which leaves the
            price out.
        known: the other columns' names, at least one.
        known_usd: what they cost per query, (n_known,); one that is NaN counts as the mean of the
            others' logarithms.

    Weights are exp(share of common words) * exp(-d**2 / 2), d being the distance of the logarithms
    of the prices over `PRICE_SCALE`.
    """
    words = _words(name)
    shared = np.array([_overlap(words, _words(other)) for other in known])
    price = _logarithms(np.append(known_usd, usd))
    distance = (price[:-1] - price[-1]) / PRICE_SCALE
    closeness = shared - distance**2 / 2.0
    weight = np.exp(closeness - closeness.max())
    mix = EVEN_SHARE / len(known) + (1.0 - EVEN_SHARE) * weight / weight.sum()
    return Likeness(mix, PRICE_TREND * float(price[-1] - price[:-1] @ mix))


def _words(name: str) -> frozenset[str]:
    return frozenset(_WORD.findall(name.lower()))


def _overlap(one: frozenset[str], other: frozenset[str]) -> float:
    """The share of all their words that they have in common (Jaccard, 1901)."""
    return len(one & other) / max(len(one | other), 1)


def _logarithms(usd: Floats) -> Floats:
    """Logarithms of prices, the last of which is the new column's; all 0 where it is unknown."""
    paid = usd[usd > 0.0]
    if np.isnan(usd[-1]) or np.isnan(usd[:-1]).all() or not paid.size:
        return np.zeros(usd.size)
    logs = np.log(np.maximum(usd, FREE * paid.min()))
    return np.asarray(np.where(np.isnan(logs), np.nanmean(logs[:-1]), logs))
