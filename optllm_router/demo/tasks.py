"""About 1,500 questions whose right answers are made by code.

Six kinds of question, each from easy to hard. How hard a question is stands in its `difficulty`,
which the router never sees; what it sees is the text, and the text shows it: more digits, more
steps, more items, other wording. That is the situation of a real router, in miniature. Everything
comes from one seed, and no two texts are equal.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise

import numpy as np

from optllm_router.errors import ConfigError

Made = tuple[str, str]  # a question's text and its reference answer

KINDS = ("arithmetic", "dates", "units", "extraction", "logs", "words")
N_QUERIES = 1_500


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoQuery:
    """One question: its kind (the router's `task`), text, right answer and hidden difficulty.

    `difficulty` lies in [0, 1); only the simulated LLMs read it.
    """

    task: str
    text: str
    reference: str
    difficulty: float


def make_queries(n_queries: int = N_QUERIES, *, seed: int = 0) -> list[DemoQuery]:
    """Make `n_queries` questions with distinct texts, the kinds equally often, in random order.

    The same seed and number give the same questions on every machine.

    Raises: ConfigError when `n_queries` is not positive.
    """
    if n_queries < 1:
        raise ConfigError(f"`n_queries={n_queries}` must be at least 1: ask for some questions.")
    rng = np.random.default_rng([seed, n_queries])
    seen: set[str] = set()
    queries = [_new_query(KINDS[i % len(KINDS)], rng, seen) for i in range(n_queries)]
    return [queries[i] for i in rng.permutation(n_queries)]


def is_right(answer: str, reference: str) -> bool:
    """Return whether an answer's last line says the reference, JSON compared by value.

    Simulated LLMs may explain themselves first, as real ones do; the last line counts. An empty
    answer is wrong.
    """
    lines = [line.strip() for line in answer.splitlines() if line.strip()]
    return bool(lines) and _value(lines[-1].removeprefix("Answer:").strip()) == _value(reference)


def wrong_answer(reference: str, *, draw: int) -> str:
    """Return a plausible wrong answer: a near number, another day, two letters swapped, ...

    `draw` is any integer; the same one gives the same answer, which never equals the reference.
    """
    rng = np.random.default_rng(draw)
    if reference.lstrip("-").isdigit():
        return str(int(reference) + int(rng.choice([-10, -2, -1, 1, 2, 10])))
    try:
        day = date.fromisoformat(reference)
    except ValueError:
        return _wrong_text(reference, rng)
    return (day + timedelta(days=int(rng.choice([-2, -1, 1, 2])))).isoformat()


def _new_query(kind: str, rng: np.random.Generator, seen: set[str]) -> DemoQuery:
    while True:  # the spaces of texts are far larger than the number of questions
        difficulty = float(rng.random())
        text, reference = _MAKERS[kind](rng, difficulty)
        if text not in seen:
            seen.add(text)
            return DemoQuery(task=kind, text=text, reference=reference, difficulty=difficulty)


def _value(text: str) -> object:
    if text[:1] not in {"[", "{"}:
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _wrong_text(reference: str, rng: np.random.Generator) -> str:
    if "<*>" in reference:  # a log template that kept a value
        return reference.replace("<*>", str(rng.integers(10, 99)), 1)
    if reference.startswith("["):
        return json.dumps(json.loads(reference)[:-1])
    pairs = pairwise(reference)
    places = [i for i, (a, b) in enumerate(pairs) if a != b and (a + b).isalpha()]
    if not places:
        return reference + reference[-1:]
    i = int(rng.choice(places))
    return reference[:i] + reference[i + 1] + reference[i] + reference[i + 2 :]


def _level(difficulty: float) -> int:
    return int(difficulty * 3)


def _number(rng: np.random.Generator, n_digits: int) -> int:
    return int(rng.integers(10 ** (n_digits - 1) + 1, 10**n_digits))


def _arithmetic(rng: np.random.Generator, difficulty: float) -> Made:
    level = _level(difficulty)
    if level == 0:
        a, b = _number(rng, 2 + (difficulty > 0.15)), _number(rng, 2)
        return f"What is {a} plus {b}?", str(a + b)
    a, b, c = _number(rng, 2 + (difficulty > 0.5)), _number(rng, 2), _number(rng, 2)
    if level == 1:
        return f"Compute the product {a} * {b} and subtract {c}.", str(a * b - c)
    d = _number(rng, 3 + (difficulty > 0.85))
    text = f"Evaluate the nested expression (({a} * {b}) + {c}) * {d} modulo 997."
    return text, str((a * b + c) * d % 997)


def _dates(rng: np.random.Generator, difficulty: float) -> Made:
    day = date(1960, 1, 1) + timedelta(days=int(rng.integers(0, 25_000)))
    level = _level(difficulty)
    if level == 0:
        n = int(rng.integers(2, 8 + int(60 * difficulty)))
        return f"Which date is {n} days after {day}?", (day + timedelta(days=n)).isoformat()
    if level == 1:
        n, rest = int(rng.integers(5, 90)), int(rng.integers(1, 7))
        text = f"Go back {n} weeks and {rest} days from {day}. Which date is it?"
        return text, (day - timedelta(days=7 * n + rest)).isoformat()
    end = day + timedelta(days=int(rng.integers(3_000, 3_000 + int(12_000 * difficulty))))
    text = f"How many days lie between {day} and {end}, leap years counted?"
    return text, str((end - day).days)


_SIMPLE_UNITS = (
    ("kilometres", "metres", 1_000),
    ("hours", "minutes", 60),
    ("kilograms", "grams", 1_000),
    ("feet", "inches", 12),
    ("litres", "millilitres", 1_000),
)


def _units(rng: np.random.Generator, difficulty: float) -> Made:
    level = _level(difficulty)
    if level == 0:
        name, small, factor = _SIMPLE_UNITS[int(rng.integers(len(_SIMPLE_UNITS)))]
        n = int(rng.integers(2, 60 + int(900 * difficulty)))
        return f"Convert {n} {name} to {small}.", str(n * factor)
    a, b, c = (int(x) for x in rng.integers(2, 59, size=3))
    if level == 1:
        text = f"Convert {a} days, {b} hours and {c} minutes to seconds."
        return text, str(((a * 24 + b) * 60 + c) * 60)
    text = (
        f"A pump moves {a} litres per second for {b} hours and {c} minutes, then half as much for "
        f"{2 * c} minutes. How many litres is that in total?"
    )
    return text, str(a * (b * 60 + c) * 60 + a * c * 60)


_PEOPLE = ("Ada", "Bela", "Chen", "Dora", "Emil", "Fatma", "Goran", "Hana", "Ivo", "Jun", "Kofi")
_GOODS = ("lamps", "chairs", "books", "kettles", "maps", "pens", "ropes", "tents", "drums")


def _extraction(rng: np.random.Generator, difficulty: float) -> Made:
    n_orders = 2 + int(difficulty * 7)
    people = [_PEOPLE[i] for i in rng.permutation(len(_PEOPLE))[:n_orders]]
    goods = [_GOODS[int(i)] for i in rng.integers(len(_GOODS), size=n_orders)]
    counts = [int(n) for n in rng.integers(2, 40, size=n_orders)]
    orders = [f"{p} wants {n} {g}" for p, n, g in zip(people, counts, goods, strict=True)]
    note = "; ".join(orders)
    level = _level(difficulty)
    if level == 0:
        return f"List the names in this note as a JSON array: {note}.", json.dumps(people)
    if level == 1:
        return f"Give the ordered quantities as a JSON array: {note}.", json.dumps(counts)
    limit = int(np.median(counts))
    kept = [[p, n] for p, n in zip(people, counts, strict=True) if n >= limit]
    text = f"From this note return a JSON array of [name, quantity] where quantity >= {limit}, "
    return text + f"largest first, ties by name: {note}.", json.dumps(
        sorted(kept, key=lambda pair: (-int(pair[1]), str(pair[0])))
    )


_LOG_LINES = (
    ("Accepted connection from {ip}",),
    ("Session {n} closed", "Cache warmed in {n} ms"),
    ("User {user} logged in from {ip} port {n}", "Block {hex} replicated to {ip} in {n} ms"),
    (
        "Job {n} on node-{n} failed: exit {n} after {n}s, log /var/log/{user}/{n}.log",
        "PUT /api/{user}/items/{n} from {ip}:{n} status {n} len {n} time {n}.{n} trace {hex}",
    ),
)
_SOURCES = ("kernel", "sshd", "dfs.DataNode", "scheduler", "gateway", "nova.compute")


def _logs(rng: np.random.Generator, difficulty: float) -> Made:
    forms = _LOG_LINES[min(int(difficulty * 4), 3)]
    template = f"{_SOURCES[int(rng.integers(len(_SOURCES)))]}: "
    template += forms[int(rng.integers(len(forms)))]
    line, reference = template, template
    for field, draw in _LOG_FIELDS.items():
        while field in line:
            line = line.replace(field, draw(rng), 1)
        reference = reference.replace(field, "<*>")
    return f"Replace every variable part of this log line by <*>: {line}", reference


_LOG_FIELDS: dict[str, Callable[[np.random.Generator], str]] = {
    "{ip}": lambda rng: ".".join(str(n) for n in rng.integers(1, 255, size=4)),
    "{n}": lambda rng: str(int(rng.integers(1, 60_000))),
    "{user}": lambda rng: _PEOPLE[int(rng.integers(len(_PEOPLE)))].lower(),
    "{hex}": lambda rng: f"0x{int(rng.integers(2**20, 2**31)):x}",
}

_WORDS = (
    *("lantern", "meadow", "copper", "violet", "harbour", "thunder", "pepper", "willow", "basket"),
    *("cobalt", "ember", "falcon", "garnet", "hollow", "island", "jasper", "kernel", "linden"),
    *("marble", "nectar", "orchid", "pebble", "quartz", "ribbon", "saddle", "timber"),
)


def _words(rng: np.random.Generator, difficulty: float) -> Made:
    level = _level(difficulty)
    words = [_WORDS[i] for i in rng.permutation(len(_WORDS))[: 2 + int(difficulty * 8)]]
    listed = ", ".join(words)
    if level == 0:
        return f"Write these words in capital letters: {listed}.", listed.upper()
    if level == 1:
        return f"Sort these words alphabetically: {listed}.", ", ".join(sorted(words))
    text = f"Spell each word backwards, then sort by last letter, ties alphabetically: {listed}."
    backwards = sorted((word[::-1] for word in words), key=lambda word: (word[-1], word))
    return text, ", ".join(backwards)


_MAKERS: dict[str, Callable[[np.random.Generator, float], Made]] = {
    "arithmetic": _arithmetic,
    "dates": _dates,
    "units": _units,
    "extraction": _extraction,
    "logs": _logs,
    "words": _words,
}
