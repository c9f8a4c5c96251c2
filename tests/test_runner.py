"""Runs without the command line: planned, made once, resumed, described."""

import concurrent.futures
import json
import os
import resource
import shutil

import pytest
import small
from refusals import refused

from jaxalign import config, plans, recipes, runner
from jaxalign.io import claims, run_dir, store
from jaxalign.literature import benchmarks
from jaxalign.stages import encode, extract, report, tune


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return small.write(tmp_path_factory.mktemp("runner") / "data", num_passages=12)


@pytest.fixture
def settings(data):
    return config.pack(
        config.Common(dataset=str(data)),
        extract=extract.Config(models=(str(small.BERT),), untrained_seed=-1),
        encode=encode.Config(groups="passage", controls=("word_length",), layers=(0, 2)),
        report=report.Config(title="Small"),
    )


@pytest.fixture
def bare(data):
    """Without controls and report, which take longest."""
    return config.pack(
        config.Common(dataset=str(data)),
        extract=extract.Config(models=(str(small.BERT),), untrained_seed=-1),
        encode=encode.Config(groups="passage", controls=(), layers=(0, 2)),
    )


@pytest.mark.slow
def test_a_run_is_made_once_and_goes_on_where_it_was(settings, tmp_path):
    workdir = tmp_path / "work"
    plan = runner.plan(settings, workdir=workdir)
    assert list(plan.stages) == ["extract", "encode", "report"]
    assert [x.artefact.stage for x in plan.steps] == ["extract", "encode", "encode", "report"]
    assert not workdir.exists()
    said = []
    assert runner.run(plan, said.append) == 4
    assert json.loads((workdir / "config.json").read_text())["encode.layers"] == [0, 2]
    assert [x for x in said if ": done in" in x] == said[1::2] and len(said) == 8
    shown = plans.results(plan)
    assert "Small" in shown and shown.endswith(f"\nPage: {workdir / 'report/index.html'}\n")
    before = (workdir / "report/index.html").read_bytes()
    said.clear()
    assert runner.run(runner.plan(settings, workdir=workdir), said.append) == 0
    assert said[-1] == "Nothing to compute: all 4 artefacts are up to date."
    (plan.stages["encode"][1].artefact.path / "done.json").unlink()
    assert runner.run(runner.plan(settings, workdir=workdir), said.append) == 1
    assert (workdir / "report/index.html").read_bytes() == before


@pytest.mark.slow
def test_what_was_damaged_after_a_run_is_made_again_by_name(settings, tmp_path):
    workdir = tmp_path / "work"
    plan = runner.plan(settings, workdir=workdir)
    runner.run(plan)
    network = plan.stages["encode"][0].artefact.path
    files = [
        workdir / "report/scores.csv",
        workdir / "report/summary.txt",
        network / "rows.parquet",
    ]
    before = [path.read_bytes() for path in files]
    for path, content in zip(files, before, strict=True):
        path.write_bytes(content[:-9] + b"999999999")
    again = runner.plan(settings, workdir=workdir)
    assert "to do again, scores.csv, summary.txt are not what was written" in plans.describe(again)
    said = []
    assert runner.run(again, said.append) == 2
    assert "encode bert: rows.parquet is not what was written: made again" in said
    assert [path.read_bytes() for path in files[:2]] == before[:2]
    shutil.copy(network / "layer_000.npz", network / "layer_002.npz")
    runner.run(runner.plan(settings, workdir=workdir), said.append)
    assert "encode bert: layer_002.npz is not what was written: made again" in said
    assert [path.read_bytes() for path in files[:2]] == before[:2]


@pytest.mark.slow
def test_two_runs_at_once_make_everything_once(bare, tmp_path, monkeypatch):
    """Each waits for what the other makes, and both end with all of it."""
    monkeypatch.setattr(runner, "POLL_S", 0.05)
    both = [runner.plan(bare, workdir=tmp_path / "work") for _ in range(2)]
    said = [[], []]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        made = list(pool.map(runner.run, both, [x.append for x in said]))
    assert sum(made) == 2
    assert any("made by another run, process" in x for x in (*said[0], *said[1]))
    assert all(step.artefact.is_done for step in both[0].steps)
    assert not (tmp_path / "work" / claims.FOLDER).exists()


@pytest.mark.slow
def test_another_page_may_take_the_place_of_a_run(settings, tmp_path):
    plan = runner.plan(settings, workdir=tmp_path / "work")
    runner.run(plan)
    other = config.override(settings, {"report.title": "Other"})
    runner.run(runner.plan(other, workdir=tmp_path / "work"))
    assert plans.results(plan) == (
        f"report: another run has replaced it: {tmp_path / 'work/report'}\n"
    )


@pytest.mark.slow
def test_damage_that_is_found_when_it_is_read_is_mended(bare, tmp_path, monkeypatch):
    """A large file is not hashed each time: its chunks have checksums."""
    monkeypatch.setattr(run_dir, "LARGE", 1000)
    workdir = tmp_path / "work"
    plan = runner.plan(bare, workdir=workdir)
    runner.run(plan)
    scores = plan.stages["encode"][0].artefact.path
    before = (scores / "rows.parquet").read_bytes()
    [shard] = (plan.stages["extract"][0].artefact.path / store.ARRAY / "c/0").glob("*/0")
    content, times = bytearray(shard.read_bytes()), shard.stat()
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns))
    shutil.rmtree(scores)
    said = []
    assert runner.run(runner.plan(bare, workdir=workdir), said.append) == 1
    [found] = (x for x in said if x.startswith("extract bert: ") and "cannot be read" in x)
    assert "Digest mismatch" in found and found.endswith(": made again")
    assert (scores / "rows.parquet").read_bytes() == before


@pytest.mark.slow
def test_a_finished_run_can_be_looked_at_where_nothing_can_be_written(settings, tmp_path):
    workdir = tmp_path / "work"
    runner.run(runner.plan(settings, workdir=workdir))
    modes = {path: path.stat().st_mode for path in (workdir, *workdir.rglob("*"))}
    try:
        for path, mode in modes.items():
            path.chmod(mode & ~0o222)
        assert runner.run(runner.plan(settings, workdir=workdir)) == 0
        other = config.override(settings, {"encode.layers": (0,)})
        with refused("workdir must be writable", "read-only"):
            runner.run(runner.plan(other, workdir=workdir))
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


def test_description_says_what_is_done_and_what_is_to_do(settings, tmp_path):
    plan = runner.plan(settings, workdir=tmp_path / "work")
    text = plans.describe(plan)
    assert "--config.encode.layers=(0, 2)" in text and "encode bert word_length: to do; " in text
    assert not (tmp_path / "work").exists()


def test_every_stage_is_checked_before_any_work(settings, tmp_path):
    wrong = config.override(settings, {"encode.layers": (0, 9)})
    with refused("encode.layers must lie in 0..3 for bert, got 9"):
        runner.plan(wrong, workdir=tmp_path / "work")
    with refused("mesh must use every device"):
        runner.plan(config.override(settings, {"mesh": (3, 1)}), workdir=tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("JAXALIGN_DATA", "from-environment")
    assert str(runner.data_folder(None)) == "from-environment"
    assert runner.data_folder(tmp_path) == tmp_path
    monkeypatch.setenv("JAXALIGN_DATA", "")
    assert runner.data_folder(None) is None


def test_override_leaves_the_configuration_as_it_is(settings):
    changed = config.override(settings, {"encode.layers": [1], "seed": 3, "report.title": "Other"})
    assert (changed.encode.layers, changed.seed, changed.report.title) == ((1,), 3, "Other")
    assert (settings.encode.layers, settings.seed) == ((0, 2), 0)
    with refused("settings must be of this run, got 'encode.layer': did you mean 'encode.layers'?"):
        config.override(settings, {"encode.layer": (1,)})
    with refused("settings: encode.num_folds must be of type int, got 'many'"):
        config.override(settings, {"encode.num_folds": "many"})


# What a model is scored on


@pytest.mark.parametrize("name,benchmark", benchmarks.BENCHMARKS.items())
def test_every_benchmark_is_found_by_name_and_by_its_parts(name, benchmark):
    assert recipes.find_benchmark(name) == (name, benchmark)
    assert recipes.find_benchmark(name, benchmark.protocol) == (name, benchmark)
    assert recipes.find_benchmark(benchmark.dataset, benchmark.protocol) == (name, benchmark)


def test_another_protocol_of_a_benchmark():
    """The same data, read as they are; a ceiling belongs to the protocol it was published for."""
    known = benchmarks.BENCHMARKS["Pereira2018.243sentences-linear-2023"]
    assert known.ceiling > 0
    name, found = recipes.find_benchmark("Pereira2018.243sentences-linear-2023", "himalaya")
    assert (name, found.dataset) == ("pereira2018-243-himalaya", "pereira2018-243")
    assert (found.protocol, found.ceiling, found.is_timed) == ("himalaya", 0.0, False)
    other, found = recipes.find_benchmark("alice", "brainscore-ridge")
    heard = benchmarks.BENCHMARKS["alice-jaxalign"]
    assert (other, found.reading) == ("alice-brainscore-ridge", heard.reading)
    assert found.reading.context == "window:10" and found.reading.delays == (1, 2, 3, 4)


def test_data_without_a_benchmark(data):
    name, found = recipes.find_benchmark(str(data), "wehbe2014")
    assert (name, found.is_timed, found.reading.delays) == ("data-wehbe2014", False, (0,))
    assert found.reading.context == "window:20"


def test_controls_bring_what_they_need(data):
    _, benchmark = recipes.find_benchmark(str(data), "jaxalign")
    make = lambda beside: recipes.on_benchmark("bert", benchmark, beside=beside)
    usual = make(None)
    assert "untrained" in usual.encode.controls and usual.extract.untrained_seed == 0
    assert make(["length"]).extract.untrained_seed == -1
    assert make(["random_embedding"]).extract.untrained_seed == 0
    assert make(["static_embedding"]).extract.static_embedding
    given = recipes.on_benchmark("network.npz", benchmark)
    assert given.imported.models == ("network.npz",) and "extract" not in given
    assert "untrained" not in given.encode.controls and "report" not in given


@pytest.mark.parametrize("below", ["", "below"])
def test_a_work_directory_that_is_a_file(settings, tmp_path, below):
    (tmp_path / "file").write_text("mine")
    with refused("workdir must be a directory, but", "file is a file"):
        runner.plan(settings, workdir=tmp_path / "file" / below)


def test_a_work_directory_of_something_else(settings, tmp_path):
    """A model's config.json, and files where the page would be."""
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with refused("must be a directory of runs, but", "config.json was not written by one"):
        runner.plan(settings, workdir=tmp_path)
    runner.plan(settings, workdir=tmp_path / "work")
    (tmp_path / "work/report").mkdir(parents=True)
    runner.plan(settings, workdir=tmp_path / "work")
    (tmp_path / "work/report/models.csv").write_text("mine")
    with refused("the page goes to", "which holds files that no run has written"):
        runner.plan(settings, workdir=tmp_path / "work")


def test_a_limit_in_which_no_chart_is_drawn(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (2**32, 2**32))
    with refused("ulimit -v) must be >= 68 GiB", "got 4.0 GiB: lift it"):
        runner.check_address_space()


def test_alpacas_instructions_are_fetched_by_their_name(data, tmp_path, monkeypatch):
    fetched = []
    monkeypatch.setattr(runner.download, "fetch", lambda name, root: fetched.append((name, root)))

    def plan(dataset, file):
        tuning = tune.Config(model=str(small.LLAMA), data=file, max_length=64)
        settings = config.pack(config.Common(dataset=dataset), tune=tuning)
        with refused("--download" if "alpaca" in file else "no such file"):
            runner.plan(settings, workdir=tmp_path, data_root=tmp_path, fetch=True)

    plan("", "alpaca/alpaca_data.json")
    plan(str(data), "alpaca/alpaca_data.json")
    plan(str(data), "my.jsonl")
    names = ["alpaca/alpaca_data.json", str(data), "alpaca/alpaca_data.json", str(data)]
    assert fetched == [(name, tmp_path) for name in names]
