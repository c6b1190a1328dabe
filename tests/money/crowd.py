"""A thousand calls at once on a budget with room for fifty: how many are served, to the nano-USD.

Run: python tests/money/crowd.py --repeats 20 --litellm

Every call goes through a real `Router` and LiteLLM to an HTTP server on loopback, in a process of
its own, that keeps its own bill. With worst case = actual exactly 50 are served; with worst case =
20 x actual exactly 31, since a call starts only while 20 of the 50 units are free. Prints one line
per crowd, and for every shape the same crowd on `litellm.Router`'s budget; ends with 1 where ours
misses a count or the ledger differs from the bill.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator, Sequence

from crowd_databases import KINDS, Kind, databases
from crowd_litellm import FoundThere, crowd_of_theirs, one_by_one
from crowd_ours import CASES, Case, Found, crowd_of_ours
from crowd_shapes import SHAPES, Shape
from crowd_upstream import Upstream

from optllm_router.records import NANO_PER_USD

COLUMNS = f"{'budget':<9} {'shape':<10} {'worst':>6} {'#':>3} {'served':>7} {'refused':>8} "
COLUMNS += f"{'spent':>9} {'limit':>9} {'overshoot':>10} {'seconds':>8}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; return 1 where anything of ours is not as promised."""
    asked = _parser().parse_args(arguments)
    print(COLUMNS, flush=True)
    with Upstream() as upstream:
        misses = [miss for kind in asked.store_kinds for miss in _ours(upstream, kind, asked)]
        if asked.litellm:
            _theirs(upstream, asked)
    print(f"{len(misses)} misses", *misses, sep="\n", flush=True)
    return 1 if misses else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--calls", type=int, default=1_000)
    parser.add_argument("--store-kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=SHAPES)
    parser.add_argument("--litellm", action="store_true", help="beside it, litellm.Router's budget")
    parser.add_argument("--litellm-repeats", type=int, default=3)
    return parser


def _ours(upstream: Upstream, kind: Kind, asked: argparse.Namespace) -> Iterator[str]:
    """Print every crowd; yield what is not as promised."""
    for shape in asked.shapes:
        for case in CASES:
            with databases(kind) as fresh:
                seconds = []
                for number in range(1, asked.repeats + 1):
                    found = crowd_of_ours(upstream, fresh, shape, case, asked.calls)
                    _print_ours(kind, shape, number, found)
                    seconds.append(found.seconds)
                    yield from (f"{kind}, {shape}, #{number}: {miss}" for miss in found.misses)
            print(f"# {kind}, {shape}, {_ratio(case)}: median {statistics.median(seconds):.1f} s")


def _theirs(upstream: Upstream, asked: argparse.Namespace) -> None:
    for case in CASES:
        _print_theirs("one by one", case, 1, one_by_one(upstream, case, 60))
        for shape in asked.shapes:
            for number in range(1, asked.litellm_repeats + 1):
                found = crowd_of_theirs(upstream, shape, case, asked.calls)
                _print_theirs(shape, case, number, found)


def _print_ours(kind: Kind, shape: Shape, number: int, found: Found) -> None:
    case = found.case
    counts = (found.n_billed, found.outcomes["refused"])
    over = max(found.billed_nusd - case.limit_nusd, 0)
    _print(kind, shape, case, number, counts, (found.billed_nusd, over), found.seconds)


def _print_theirs(shape: str, case: Case, number: int, found: FoundThere) -> None:
    counts = (found.n_billed, found.outcomes["refused"])
    money = (found.billed_nusd, found.overshoot_nusd)
    _print("litellm", shape, case, number, counts, money, found.seconds)


def _print(
    budget: str,
    shape: str,
    case: Case,
    number: int,
    counts: tuple[int, int],
    money: tuple[int, int],
    seconds: float,
) -> None:
    billed, over = (f"{nusd / NANO_PER_USD:.4f}" for nusd in money)
    limit = f"{case.limit_nusd / NANO_PER_USD:.4f}"
    print(
        f"{budget:<9} {shape:<10} {_ratio(case):>6} {number:>3} {counts[0]:>7} {counts[1]:>8} "
        f"{billed:>9} {limit:>9} {over:>10} {seconds:>8.2f}",
        flush=True,
    )


def _ratio(case: Case) -> str:
    return f"{case.ratio} x"


if __name__ == "__main__":
    sys.exit(main())
