"""Prices of work, and the refusal of what cannot fit."""

import math

import pytest

from jaxalign.pricing import chips, prices
from jaxalign.pricing.work import PAGE, Layout, Work, quantity

V5E = chips.find("v5e-8")


def divided(gigabytes):
    """Return work whose memory is that of weights, divided over the model axis."""
    return lambda layout: Work(
        flop={"bfloat16": 1e15, "eigen": 1e9},
        device_bytes=gigabytes * 1e9 / layout.model,
        disk_bytes=1e6,
        programs=frozenset({("network", 1), ("solver", 2)}),
    )


def test_time_is_of_arithmetic_compilation_and_the_rest():
    layout, chip = Layout(8, 1, False), V5E.chip
    found = prices.price(divided(1), V5E, layout, 1.2)
    expected = 1e15 / chip.rate("bfloat16") / 8  # on all devices
    expected += 1e9 / chip.rate("eigen")  # on one
    expected += chip.network_compile_s + chip.solver_compile_s
    assert found.seconds == pytest.approx(expected)
    assert found.money == pytest.approx(8 * 1.2 * expected / 3600)
    assert math.isnan(prices.price(divided(1), V5E, layout).money)
    slow = prices.price(
        lambda layout: Work(flop={"bfloat16": 1.0}, moved_bytes=8.1e12), V5E, layout
    )
    assert slow.seconds == pytest.approx(10)


def test_programs_are_compiled_for_the_first_that_needs_them():
    items = [prices.Item("a", divided(1)), prices.Item("b", divided(1))]
    first, second = prices.in_turn(items, V5E, Layout(8, 1, False))
    saved = V5E.chip.network_compile_s + V5E.chip.solver_compile_s
    assert first.seconds - second.seconds == pytest.approx(saved)
    whole = prices.total([first, second])
    assert whole.seconds == first.seconds + second.seconds
    assert whole.device_bytes == first.device_bytes and whole.work.disk_bytes == 2e6


def test_what_cannot_fit_is_refused_with_the_smallest_mesh_that_can():
    job, layout = prices.Item("extract big", divided(26)), Layout(8, 1, False)
    assert not prices.refusal([job], V5E, Layout(4, 2, False))
    said = prices.refusal([job, prices.Item("small", divided(1))], V5E, layout)
    assert said == (
        "memory: extract big needs 24.21 GiB of memory on each device of v5e-8 in a mesh of "
        "(8, 1), which can give 14.16 GiB of 14.90 GiB: the smallest mesh of these devices that "
        "can is (4, 2)."
    )
    said = prices.refusal([prices.Item("huge", divided(200))] * 2, V5E, Layout(1, 8, False))
    assert said.endswith("the smallest mesh that can is (1, 16). So it is with 1 more.")
    fixed = prices.Item("fixed", lambda layout: Work(device_bytes=1e12))
    assert prices.refusal([fixed], V5E, layout).endswith("fits no mesh of up to 256 such devices.")
    assert not prices.refusal([job._replace(is_done=True)], V5E, layout)


def test_the_table_has_a_line_for_each_and_one_for_all():
    items = [prices.Item("encode x", divided(1)), prices.Item("report", PAGE)]
    items.append(prices.Item("extract x", divided(1), is_done=True))
    text = prices.table(items, V5E, Layout(8, 1, False), 1.2)
    head, columns, *rows = text.splitlines()
    assert head.startswith("v5e-8: scaling-book") and "efficiencies guessed" in head
    assert columns.split()[-1] == "money"
    assert [row.split("  ")[0] for row in rows] == ["encode x", "report", "all"]
    assert "money" not in prices.table(items, V5E, Layout(8, 1, False), math.nan)


def test_work_adds_up_and_repeats():
    one = Work(flop={"sweep": 2.0}, device_bytes=3.0, host_bytes=1.0, fits=1, disk_bytes=5.0)
    two = one + Work(flop={"sweep": 1.0, "eigen": 4.0}, device_bytes=1.0, host_bytes=2.0)
    assert two.flop == {"sweep": 3.0, "eigen": 4.0} and two.total_flop == 7.0
    assert (two.device_bytes, two.host_bytes) == (3.0, 2.0)
    ten = one.times(10)
    assert (ten.total_flop, ten.fits, ten.disk_bytes, ten.device_bytes) == (20.0, 10, 5.0, 3.0)
    assert one.process_bytes(Layout(2, 1)) - one.process_bytes(Layout(2, 1, False)) == 6.0


def test_numbers_are_written_with_three_digits():
    assert quantity(1.234e12, "FLOP") == "1.23 TFLOP" and quantity(12, "B") == "12 B"
    assert [prices.duration(x) for x in (9.96, 600, 7200)] == ["10.0 s", "10.0 min", "2.0 h"]
