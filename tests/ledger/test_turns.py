"""Of those who wait for the same money only the first asks, and everybody gets their turn."""

from __future__ import annotations

import os

from optllm_router.ledger import Turns

DAY = ("room", "day 1")


def test_only_the_first_of_a_line_asks():
    turns = Turns()
    first, second = turns.join(DAY), turns.join(DAY)

    assert [True, False] == [turns.is_first(first), turns.is_first(second)]


def test_a_settle_calls_the_first_of_its_budgets_lines_and_nobody_else():
    turns = Turns()
    first, second = turns.join(DAY), turns.join(DAY)
    other, elsewhere = turns.join(("room", "day 2")), turns.join(("team", "day 1"))

    turns.settled(["room"])

    called = [ticket.signal.done() for ticket in (first, second, other, elsewhere)]
    assert [True, False, True, False] == called


def test_who_leaves_calls_the_next():
    turns = Turns()
    first, second, third = (turns.join(DAY) for _ in range(3))

    turns.leave(second)
    assert not third.signal.done()
    turns.leave(first)

    assert third.signal.done()
    assert turns.is_first(third)


def test_a_settle_while_the_first_asks_calls_it_again():
    turns = Turns()
    ticket = turns.join(DAY)
    turns.settled(["room"])
    ticket.renew()

    turns.settled(["room"])
    turns.settled(["room"])

    assert ticket.signal.done()


def test_an_empty_line_is_forgotten():
    turns = Turns()
    ticket = turns.join(DAY)

    turns.leave(ticket)
    turns.leave(ticket)

    assert {} == turns._lines


def test_a_forked_process_has_lines_of_its_own():
    turns = Turns()
    turns.join(DAY)
    read, write = os.pipe()
    with turns._lock:
        pid = os.fork()
        if pid == 0:
            os.write(write, b"y" if turns.is_first(turns.join(DAY)) else b"n")
            os._exit(0)
    os.waitpid(pid, 0)

    assert b"y" == os.read(read, 1)
    os.close(read)
    os.close(write)
