"""The front as text, to the letter."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from optllm_router.demo.draw import Mark, PolicyRow, draw_front, policy_table, usd

GOLDEN = """\
accuracy
   0.950 ┤                                   ····A
         │                           ··◆·····
         │                   ········
   0.819 ┤               ····
         │           ····
   0.731 ┤      ·····
         │  ····
         │··
   0.600 ┤B
         └────────────────────────────────────────
          $0             $0.500              $1.00
                                              cost

  ·  the front
  ◆  budget  $0.750, accuracy 0.900
  A  big    $1.00, accuracy 0.950
  B  small  $0, accuracy 0.600"""


def test_a_front_with_candidates_and_the_current_point() -> None:
    drawn = draw_front(
        [0.0, 0.5, 1.0],
        [0.65, 0.85, 0.95],
        marks=[
            Mark(name="big", cost_usd=1.0, accuracy=0.95),
            Mark(name="small", cost_usd=0.0, accuracy=0.6),
        ],
        current=Mark(name="budget", cost_usd=0.75, accuracy=0.90),
        size=(40, 9),
    )

    assert drawn == GOLDEN


def test_costs_a_hundred_times_apart_get_a_logarithmic_axis() -> None:
    drawn = draw_front([0.01, 0.1, 1.0], [0.2, 0.5, 0.8])

    assert "cost, logarithmic" in drawn
    assert "$0.100" in drawn  # the geometric middle


def test_equal_places_stand_side_by_side() -> None:
    marks = [Mark(name=name, cost_usd=0.0, accuracy=0.5) for name in ("x", "y", "z")]

    assert any("ABC" in line for line in draw_front([], [], marks=marks).splitlines())


def test_one_point_and_no_point_are_drawn() -> None:
    assert "┤" in draw_front([0.0], [1.0])
    assert draw_front([], []) == "There is no front to draw yet."


@pytest.mark.parametrize(
    ("amount", "written"),
    [
        (0, "$0"),
        (0.00001784, "$0.0000178"),
        (0.5, "$0.500"),
        (2.664, "$2.66"),
        (1234.5, "$1,234.50"),
    ],
)
def test_money_is_written_with_three_digits(amount, written) -> None:
    assert written == usd(amount)


def test_the_table_of_policies_shows_savings_with_their_interval() -> None:
    console = Console(file=StringIO(), width=100)
    rows = [
        PolicyRow(
            policy="budget", asked="$1.00", cost_usd=0.9, accuracy=0.88,
            saving=0.61, interval=(0.6, 0.625),
        ),
        PolicyRow(policy="always the best [x]", cost_usd=2.3, accuracy=0.9),
    ]  # fmt: skip
    console.print(policy_table("Batch", rows))

    shown = console.file.getvalue()
    assert "61.0%" in shown
    assert "60.0% to 62.5%" in shown
    assert "always the best [x]" in shown
