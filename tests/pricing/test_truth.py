"""What is measured of a step, and the table that holds it against the plan."""

import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.pricing import chips, prices, truth
from jaxalign.pricing.work import Layout, Work


def test_time_memory_and_compilation_are_measured():
    with truth.metered() as before:
        pass
    with truth.metered() as meter:
        held = np.ones(60_000_000)  # 480 MB, all of which are written
        jax.block_until_ready(jax.jit(lambda x: jnp.sin(x) + held[0])(jnp.ones(7)))
        time.sleep(0.05)
    assert 0.05 < meter.seconds and 0 < meter.cpu_seconds
    assert meter.peak_of == "process"  # CPU devices have no statistics
    if meter.peak_since == "step":
        assert meter.peak_bytes - before.peak_bytes == pytest.approx(480e6, rel=0.1)
        del held
        with truth.metered() as after:
            pass
        assert after.peak_bytes < meter.peak_bytes - 400e6
    assert 0 < meter.compile_seconds < meter.seconds
    assert sum(meter.programs.values()) == pytest.approx(meter.compile_seconds)
    assert before.compile_seconds == 0


def test_facts_hold_plan_and_truth():
    machine, layout = chips.find("cpu"), Layout()
    work = Work(flop={"float32": 1e9}, num_tokens=100, passes=1, disk_bytes=4.0)
    price = prices.price(lambda layout: work, machine, layout)
    meter = truth.Meter(seconds=2.0, peak_bytes=2**30, compile_seconds=1.0)
    meter.programs = {"a": 0.1, "b": 0.4, "c": 0.2, "d": 0.3}
    found = truth.facts(price, machine, layout, meter, truth.Ran(num_tokens=100))
    found["files"] = {"a": {"size": 2}, "b": {"size": 3}}
    took, planned = found["took"], found["planned"]
    assert truth.written(found) == 5 and took["tokens_per_s"] == 50 and took["flop_per_s"] == 5e8
    assert took["share_of_peak"] == pytest.approx(5e8 / machine.chip.float32)
    assert took["longest_programs"] == [["b", 0.4], ["d", 0.3], ["c", 0.2]]
    assert planned["seconds"] == pytest.approx(price.seconds, abs=1e-3)
    said = truth.line(found)
    assert "1.0 s of it compiling" in said and "50 tokens/s" in said and "% of peak" in said
    head, columns, row, whole = truth.table(["extract x"], [found]).splitlines()
    assert "memory of the process" in head and row.startswith("extract x")
    assert whole.split()[0] == "all" and "2.0 s" in row


def test_the_rest_of_a_resumed_step_has_the_rate_of_what_was_left():
    machine, layout = chips.find("cpu"), Layout()
    price = prices.price(lambda layout: Work(flop={"float32": 1e9}), machine, layout)
    meter = truth.Meter(seconds=2.0)
    found = truth.facts(price, machine, layout, meter, truth.Ran(flop={"float32": 2e8}))
    found["files"] = {}
    took = found["took"]
    assert took["flop"] == {"float32": 2e8} and took["flop_per_s"] == 1e8
    assert took["share_of_peak"] == pytest.approx(1e8 / machine.chip.float32)
    *_, row, whole = truth.table(["x"], [found]).splitlines()
    for line, last in ((row, "100 M"), (whole, "-")):
        assert "1 G" in line and "200 M" in line and line.endswith(last)


def test_an_unknown_machine_has_no_time():
    price = prices.Price(Work(flop={"sweep": 1.0}), math.nan, 0.0, 0.0, math.nan)
    found = truth.facts(price, None, Layout(1, 1, False), truth.Meter(seconds=1.0), truth.Ran())
    found["files"] = {}
    assert "seconds" not in found["planned"] and "share_of_peak" not in found["took"]
    assert " - " in truth.table(["x"], [found])
