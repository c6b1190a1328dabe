"""What one live call may spend of a budget's window: what is left, over the calls still expected.

The calls of the rest of a window are taken to come as often as those of its part so far, so that
an allowance that was too high or too low corrects itself with every look at the account.
"""

from __future__ import annotations

MIN_CALLS = 20  # fewer say too little about how many are to come


def allowance_nusd(left_nusd: int, n_calls: int, elapsed: float | None) -> float | None:
    """Return what each further call of a window may cost on average, in nano-USD.

    Args:
        left_nusd: what of the limit is neither spent nor reserved; 0 or less allows nothing.
        n_calls: how many calls the window has seen.
        elapsed: the share of the window that has passed, in [0, 1]; None where it has no end.

    Returns: at most `left_nusd`; None where too few calls are seen, or there is no end to share
        the money out to.
    """
    if elapsed is None or elapsed <= 0.0 or n_calls < MIN_CALLS:
        return None
    expected = n_calls * (1.0 - elapsed) / elapsed
    return max(left_nusd, 0) / max(expected, 1.0)
