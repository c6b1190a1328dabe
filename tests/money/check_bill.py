"""Does the ledger equal the provider's bill? Mixed calls, then both books side by side.

Run: python tests/money/check_bill.py --calls 10000 [--store URL] [--seed N] [--folder FOLDER].
The provider is a process of its own that keeps its own bill; see `billing_upstream`. Ends with 1
where known usage differs by a nano-USD, flagged estimates by more than 10 % in total, or an account
from its attempts. With `--again` it only compares what lies in the folder.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path

from bill_comparison import Comparison, compare, table
from own_bill import Billed, OfDay, read_bill, write_csv
from what_was_done import Made

HERE = Path(__file__).parent
LEAST_PROBES, MOST_PROBES = 16, 100  # queries
N_SHOWN = 30


@contextmanager
def upstream(bill: Path, seed: int) -> Iterator[int]:
    """Run the provider; yield its port."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "billing_upstream.py"), str(bill), str(seed)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.stdin.close()
        process.wait(timeout=30)
        process.stdout.close()


def run(store: str, folder: Path, n_calls: int, seed: int) -> float:
    """Make the calls; leave bill and callers' notes in the folder; return the seconds it took."""
    from mixed_calls import learn, make, open_router  # LiteLLM: three seconds

    with upstream(folder / "bill.jsonl", seed) as port:
        start = time.perf_counter()
        router = open_router(port, store)
        try:
            made = learn(router, min(MOST_PROBES, max(n_calls // 20, LEAST_PROBES)))
            made += make(router, n_calls, seed)
            router.flush()
        finally:
            router.close()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/finish") as answer:
            n_taken = json.load(answer)["n_taken"]
        took_s = time.perf_counter() - start
    lines = [json.dumps(asdict(one)) for one in made]
    (folder / "made.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert n_taken == len(read_bill(folder / "bill.jsonl"))
    return took_s


def read_made(folder: Path) -> list[Made]:
    """What callers noted of their calls."""
    lines = (folder / "made.jsonl").read_text(encoding="utf-8").splitlines()
    return [Made(**json.loads(line)) for line in lines]


def check_reconciling(found: Comparison, store: str, folder: Path, *, within: float) -> list[str]:
    """Have `optllm budget reconcile` find the same differences; return what is wrong."""
    billed = [bill for _, bill in found.pairs if bill is not None]
    ours = sum(row.nusd for row, _ in found.pairs if row is not None)
    theirs = sum(bill.nusd for bill in billed)
    code, said = _reconcile(_per_day(billed), store, folder, f"{within:%}")
    wrong = [] if code == 0 else [f"reconcile ended with {code}, with rows beyond: {said}"]
    expected = {"ours_usd": ours, "bill_usd": theirs, "difference_usd": ours - theirs}
    for name, nusd in expected.items():
        if Decimal(said[name]).scaleb(9) != nusd:
            wrong.append(f"reconcile: {name} is {said[name]}, not {nusd} nano-USD")
    agreed = _agreed(found)
    code, said = _reconcile(agreed, store, folder, "0")
    if code != 0 or Decimal(said["difference_usd"]):
        wrong.append(f"reconcile ended with {code} where only estimates differ: {said}")
    agreed[min(agreed)].nusd += 1
    code, said = _reconcile(agreed, store, folder, "0")
    if code != 1 or Decimal(said["difference_usd"]).scaleb(9) != -1:
        wrong.append(f"reconcile ended with {code} where the bill is a nano-USD dearer: {said}")
    return wrong


def _per_day(billed: Iterable[Billed]) -> dict[tuple[str, str], OfDay]:
    days: defaultdict[tuple[str, str], OfDay] = defaultdict(OfDay)
    for one in billed:
        days[one.model, one.day].add(one.nusd, one.tokens.prompt + one.tokens.completion)
    return dict(days)


def _agreed(found: Comparison) -> dict[tuple[str, str], OfDay]:
    """The bill as it would be if our estimates were right."""
    days: defaultdict[tuple[str, str], OfDay] = defaultdict(OfDay)
    for row, bill in found.pairs:
        if row is not None and (row.estimated or bill is None):
            days[row.candidate, row.day].add(row.nusd, 0)
        elif bill is not None:
            days[bill.model, bill.day].add(bill.nusd, 0)
    return dict(days)


def _reconcile(
    days: Mapping[tuple[str, str], OfDay], store: str, folder: Path, tolerance: str
) -> tuple[int, dict[str, str]]:
    path = folder / "BILL.csv"
    write_csv(days, path)
    given = ("budget", "reconcile", str(path), "--store", store, "--tolerance", tolerance, "--json")
    command = [sys.executable, "-m", "optllm_router.cli", *given]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if not ended.stdout:
        raise RuntimeError(ended.stderr)
    return ended.returncode, json.loads(ended.stdout)


def report(found: Comparison, made: Sequence[Made], wrong: Sequence[str]) -> None:
    """Print the table, what became of calls and requests, the accounts, and what is wrong."""
    print(table(found))
    calls = Counter(one.end for one in made)
    print("\ncalls:", ", ".join(f"{n} {how or 'probed'}" for how, n in calls.most_common()))
    went = Counter(bill.went for _, bill in found.pairs if bill is not None)
    print("requests:", ", ".join(f"{n} {how}" for how, n in went.most_common()))
    ends = Counter(row.status for row, _ in found.pairs if row is not None)
    print("attempts:", ", ".join(f"{n} {how}" for how, n in ends.most_common()))
    print(f"flagged, but never seen by the provider: {found.n_never_arrived}")
    for name, account in sorted(found.accounts.items()):
        print(f"budget {name}: {account}")
    print(f"\ndifferences: {len(wrong)}" if wrong else "\nthe books agree")
    for one in wrong[:N_SHOWN]:
        print("  ", one)


def main() -> int:
    """Run, compare, print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--within", type=float, default=0.10, help="share for all estimates")
    parser.add_argument("--store", help="an empty log; a new SQLite file where it is not given")
    parser.add_argument("--folder", type=Path, help="where bill and notes are left")
    parser.add_argument("--again", action="store_true", help="only compare what is in the folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        store = given.store or f"sqlite:///{folder / 'log.db'}"
        if not given.again:
            took_s = run(store, folder, given.calls, given.seed)
            print(f"{given.calls} calls in {took_s:.0f} s, seed {given.seed}\n")
        bill, made = read_bill(folder / "bill.jsonl"), read_made(folder)
        found = compare(store, bill, made, within=given.within)
        wrong = [*found.wrong, *check_reconciling(found, store, folder, within=given.within)]
        report(found, made, wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
