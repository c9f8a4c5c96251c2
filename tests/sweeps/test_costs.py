"""Prices of the jobs of a sweep: each thing is paid for once, and what cannot fit is named."""

import dataclasses
import importlib.util
import pathlib

import pytest
import small

from jaxalign import config
from jaxalign.pricing import chips, prices
from jaxalign.pricing.work import Layout, Work
from jaxalign.stages import encode, extract, report
from jaxalign.sweeps import costs, engines, machines, planning, record
from jaxalign.sweeps.engines import Options
from jaxalign.sweeps.entries import Entry, Sweep

PAPER = pathlib.Path(__file__).resolve().parents[2] / "configs/sweeps/aw2024.py"
V5E = chips.find("v5e-8")
LLAMA, BERT = str(small.LLAMA), str(small.BERT)


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """Return a function that plans llama under two protocols and bert, for a machine."""
    folder = tmp_path_factory.mktemp("costs")
    packed = config.pack(
        config.Common(dataset=str(small.write(folder / "data", num_passages=24))),
        extract=extract.Config(models=(LLAMA,), untrained_seed=-1),
        encode=encode.Config(controls=("word_length",), layers=(0, 2)),
        report=report.Config(),
    )

    def plan(machine, store="store"):
        changes = (
            {},
            {"encode.protocol": "brainscore-linear-2026-own-reading"},
            {"extract.models": (BERT,)},
        )
        entries = [
            Entry(
                name=f"run{i}",
                changes=change,
                settings=config.override(packed, change),
                flags=(),
                where="",
            )
            for i, change in enumerate(changes)
        ]
        sweep = Sweep(path=folder / "swept.py", entries=entries, together={})
        where = planning.Where(
            store=folder / store, name="s", machine=machine, is_elsewhere=machine is not None
        )
        return planning.plan(sweep, where)

    return plan


@pytest.fixture(scope="module")
def priced(plan):
    return plan(V5E)


def test_each_thing_is_paid_for_by_the_job_that_makes_it(priced):
    found = {x.name: x.planned for x in priced.jobs}
    assert list(found) == ["extract-llama", "run0", "run1", "run2", "collect"]
    passes = {name for name, x in found.items() if x["flop"].get("float32")}
    assert passes == {"extract-llama", "run2"}
    assert all(found[name]["flop"]["sweep"] > 0 for name in ("run0", "run1", "run2"))
    assert found["collect"]["seconds"] > 0 and found["collect"]["machine"] == "v5e-8"
    text = planning.describe(priced, V5E, 1.2)
    head, columns, *rows, whole = text.partition("# Price\n")[2].splitlines()
    assert head.startswith("v5e-8: scaling-book") and columns.split()[-1] == "money"
    assert [x.split()[0] for x in rows] == list(found) and whole.startswith("all 5")
    seconds = sum(x["seconds"] for x in found.values())
    every = prices.total([costs.price(x, V5E, 1.2) for x in found.values()])
    assert every.seconds == seconds
    assert every.money == pytest.approx(8 * 1.2 * seconds / 3600)
    assert whole.split()[-1] == f"{every.money:.2f}"
    assert costs.refusal(priced) == ""


@pytest.mark.slow
def test_what_is_done_costs_nothing(plan, priced):
    again = plan(V5E, "again")
    for product in again.job("extract-llama").products:
        path = pathlib.Path(product.path)
        path.mkdir(parents=True)
        (path / "done.json").write_text(
            f'{{"fingerprint": "{product.fingerprint}", "files": {{}}}}'
        )
    found = plan(V5E, "again")
    assert found.job("extract-llama").planned["seconds"] == 0
    assert found.job("run0").planned == priced.job("run0").planned


@pytest.mark.slow
def test_what_cannot_fit_is_one_line_with_the_mesh_that_can(plan, priced):
    needed = priced.job("extract-llama").planned["device_bytes"]
    small_machine = dataclasses.replace(V5E, chip=dataclasses.replace(V5E.chip, memory=needed))
    found = plan(small_machine)
    said = costs.refusal(found)
    assert said.startswith("memory: job extract-llama: extract llama needs ")
    assert "in a mesh of (8, 1), which can give" in said and "the smallest mesh" in said
    text = planning.describe(found, small_machine)
    assert f"extract-llama: {costs.refused(found.jobs)['extract-llama']}\n" in text


def test_all_jobs_that_cannot_fit_are_named(priced):
    large = [dataclasses.replace(x, planned=x.planned | {"refused": "why."}) for x in priced.jobs]
    said = costs.refusal(dataclasses.replace(priced, jobs=large[:3]))
    assert said == "memory: job extract-llama: why. So it is with 2 more: run0, run1."


def test_without_a_machine_there_is_no_price(plan):
    found = plan(None)
    assert [x.planned for x in found.jobs] == [{}] * 5
    assert planning.describe(found).endswith("is not known here; give --chip.\n")
    assert costs.refusal(found) == ""


def test_prices_are_kept_with_the_record(priced, tmp_path):
    kept = dataclasses.replace(priced, folder=tmp_path)
    kept.write()
    assert [x.planned for x in record.read(tmp_path).jobs] == [x.planned for x in kept.jobs]


def test_engines_name_chips_of_the_table():
    for name in machines.MACHINES:
        for engine in ("skypilot", "jobset", "tpu_vm"):
            chip = engines.find(engine).chip(Options(accelerator=name, devices_per_job=4))
            assert chips.find(chip).num_devices == 4
    assert engines.find("jobset").chip(Options(accelerator="H100:8", devices_per_job=0)) == ""
    assert engines.find("slurm").chip(Options()) == ""
    assert engines.find("local").chip(Options(devices_per_job=0)) == "cpu-1"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name,mesh,data,gigabytes",
    [
        ("h200", (-1, 1), ("pereira384", "blank"), (13, 30)),
        ("v5e-8", (1, 8), ("wehbe",), (13.4 / 8, 15.2)),
    ],
)
def test_the_paper_is_priced_without_weights_and_data(tmp_path, name, mesh, data, gigabytes):
    """Of a model that cannot be here: it was published as a difference."""
    spec = importlib.util.spec_from_file_location("aw2024", PAPER)
    paper = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(paper)
    assert len(paper.MODELS) == 25 and set(data) <= set(paper.DATA)
    entries = [
        Entry(
            name=x,
            changes={},
            settings=config.override(paper.get_config(f"alpaca-7b,{x}"), {"mesh": mesh}),
            flags=(),
            where="",
        )
        for x in data
    ]
    where = planning.Where(
        store=tmp_path / "store",
        name="s",
        data_root=tmp_path,
        machine=chips.find(name),
        is_elsewhere=True,
    )
    found = planning.plan(Sweep(path=PAPER, entries=entries, together={}), where)
    assert costs.refusal(found) == ""
    said = [x for x in found.assumed if x.startswith("data set ")]
    assert len(said) == len(data) and "models alpaca-7b are not here" in found.assumed[0]
    for job in (x for x in found.jobs if x.kind == record.RUN):
        # 6.6 billion multiplications for each token, of which words have 1.2 at least.
        words = {"pereira384": 4537, "blank": 8337, "wehbe": 5176}[job.name]
        assert job.planned["flop"]["bfloat16"] > 2 * 6.6e9 * 1.2 * words
        assert gigabytes[0] * 1e9 < job.planned["device_bytes"] < gigabytes[1] * 1e9
        assert job.planned["seconds"] > 0 and job.planned["disk_bytes"] > 1e6


def test_a_program_is_compiled_in_the_first_job_that_needs_it():
    """Later jobs read it from the cache of compiled programs."""
    work = Work(flop={"float32": 1e12}, programs=frozenset([("network", "a"), ("solver", "b")]))
    layout = Layout(8, 1, is_cpu=False)
    steps = {"x": costs.Step(prices.Item("x", lambda layout: work), layout, "")}
    compiled: set[tuple] = set()
    first, second = (costs.of_job(steps, V5E, compiled)["seconds"] for _ in range(2))
    chip = V5E.chip
    assert first - second == pytest.approx(chip.network_compile_s + chip.solver_compile_s)
    assert costs.of_job(steps, V5E)["seconds"] == first
    assert compiled == work.programs
