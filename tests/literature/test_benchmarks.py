import importlib.util
import pathlib

import pytest
from refusals import refused

from jaxalign import config
from jaxalign.core.scores.protocol import READING
from jaxalign.data.text import texts
from jaxalign.literature import benchmarks, protocols

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", benchmarks.BENCHMARKS)
def test_every_benchmark_makes_a_configuration(name):
    benchmark = benchmarks.find(name)
    protocol = protocols.find(benchmark.protocol)
    spec = importlib.util.spec_from_file_location("score", REPOSITORY / "configs/score.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    common, stages = config.unpack(module.get_config(f"gpt2,{name}"))
    if protocol.kind == "next_word":
        assert list(stages) == ["next_word"] and not common.dataset
        assert stages["next_word"].text == benchmark.dataset
        assert benchmark.dataset in texts.TEXTS
        return
    assert common.dataset == benchmark.dataset
    if protocol.kind == "reading_time":
        assert list(stages) == ["extract", "behavior"]
        reading = stages["extract"]
        assert (reading.context, reading.one_stream, reading.surprisal) == (
            "accumulate:slide",
            True,
            True,
        )
        return
    assert protocol.kind == "encoding" and protocol.encoding[0].rule != "test_set"
    assert stages["encode"].protocol == benchmark.scored_under.name
    # What the configuration reads is what its protocol allows.
    reading = {x: getattr(stages["extract"], x) for x in READING}
    protocols.refuse_other_readings(protocols.find(stages["encode"].protocol), reading, "extract")
    assert (stages["encode"].delays == (0,)) == (not benchmark.is_timed)


def test_names_say_where_stimuli_are_read_otherwise():
    """Alice is read with ten words, which two of its protocols do not say."""
    found = {name: benchmarks.find(f"alice-{name}") for name in ("jaxalign", "himalaya")}
    assert {x.scored_under.name for x in found.values()} == set(found)
    for name in ("brainscore-linear-2026", "wehbe2014"):
        chosen = benchmarks.find(f"alice-{name.removeprefix('brainscore-')}")
        assert chosen.scored_under.name == f"{name}-own-reading"
    others = [x for x in benchmarks.BENCHMARKS.values() if x.dataset != "alice"]
    assert all(x.scored_under.name == x.protocol for x in others)


def test_published_ceilings():
    """Their mean is what Aw et al. give for Pereira2018: .359."""
    names = [f"Pereira2018.{num}sentences-linear-2023" for num in (243, 384)]
    mean = sum(benchmarks.find(name).ceiling for name in names) / 2
    assert mean == pytest.approx(0.359, abs=5e-4)
    assert benchmarks.find("Blank2014-linear-2023").ceiling == pytest.approx(0.210, abs=5e-4)


def test_unknown_benchmark():
    with refused("benchmark must be one of alice-jaxalign,", "got 'Alice'"):
        benchmarks.find("Alice")
