"""The bench on problems that take milliseconds; nothing depends on how long anything takes."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import tiny

from jaxalign import config as config_lib
from jaxalign.bench import peers, phases, solver
from jaxalign.errors import InputError
from jaxalign.io import rows as rows_lib
from jaxalign.io import run_dir
from jaxalign.stages import Job

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
# Packages of the bench extra are not taken for granted; these are there wherever tests run.
PEERS = ("sklearn", "numpy")
CASE = solver.Case(
    n=36, p=5, v=12, num_alphas=4, num_folds=3, search="grid", peers=PEERS, num_repeats=2
)
SWEEP = solver.Sweep(
    n=(24,), p=(3, 4), v=(4,), a=(3,), k=(3,), search="grid", num_repeats=1, peers=("numpy",)
)
CONFIGURATION = f"""
from jaxalign import config
from jaxalign.bench import solver

def get_config():
    return config.pack(
        config.Common(),
        bench=solver.Config(cases={{"small": solver.{CASE}}}, sweeps={{"few": solver.{SWEEP}}}),
    )
"""


@pytest.fixture
def job(tmp_path, mesh):
    return Job(workdir=tmp_path / "work", data_root=None, dataset=None, mesh=mesh, seed=0)


def rows(artefact):
    return rows_lib.read_table(artefact.path / solver.ROWS)


@pytest.mark.slow
def test_a_case_is_measured_against_its_peers(job):
    config = solver.Config(cases={"small": CASE}, num_checked=5)
    (case, summary) = tiny.make(solver.plan(config, job, {}))
    table = rows(case)
    assert table.solver.tolist() == ["jaxalign", *PEERS]
    assert table.num_repeats.tolist() == [2, 3, 3]
    assert [len(json.loads(x)) for x in table.times_s] == [2, 3, 3]
    assert (table.min_s <= table.median_s).all() and (table.median_s <= table.max_s).all()
    np.testing.assert_allclose(table.ratio, table.median_s / table.median_s[0])
    # Five targets in three folds; all solvers agree where no two penalties are as good.
    assert (table.num_checked == 15).all()
    assert (table.reference_same_untied_share == 1).all()
    assert (table.same_untied_share[1:] == 1).all()
    assert (table.max_dr[1:] < 1e-4).all() and (table.reference_max_dr < 1e-4).all()
    np.testing.assert_allclose(table.mean_r, table.mean_r[0], atol=1e-3)
    ours = table.iloc[0]
    assert ours.evaluations == CASE.num_alphas
    assert ours.peak_mb > 0 and ours.planned_mb > 0
    parts = [(ours[f"{x}_s"], ours[f"{x}_gflop_per_s"]) for x in phases.PHASES]
    assert sum(seconds * rate for seconds, rate in parts) == pytest.approx(ours.gflop)
    assert ours.compile_s == pytest.approx(ours.first_s - ours.median_s)
    assert ours.gflop_per_s == pytest.approx(ours.gflop / ours.median_s)
    assert not list(case.path.glob("inputs.*"))
    text = (summary.path / solver.SUMMARY).read_text()
    assert "small: first call" in text
    assert "himalaya" not in text.partition("\n")[2]


@pytest.mark.parametrize(
    ("changed", "again"),
    [("search.py", True), ("metrics.py", True), ("peers.py", True), ("solver_page.py", False)],
)
def test_what_is_timed_is_measured_again_when_it_changes(job, monkeypatch, changed, again):
    plan = lambda: solver.plan(solver.Config(cases={"one": CASE}, sweeps={}), job, {})
    before, hash_file = plan()[0].artefact.fingerprint, run_dir.hash_file
    monkeypatch.setattr(
        run_dir, "hash_file", lambda path: hash_file(path) + "new" * (path.name == changed)
    )
    assert (plan()[0].artefact.fingerprint != before) == again


@pytest.mark.slow
def test_a_sweep_measures_its_base_once(job):
    sweep = dataclasses.replace(SWEEP, n=(24, 30), peers=())
    (swept, summary) = tiny.make(
        solver.plan(solver.Config(cases={}, sweeps={"few": sweep}), job, {})
    )
    table = rows(swept)
    assert table.axis.tolist() == ["n", "n", "p", "p"]
    assert list(zip(table.n, table.p, strict=True)) == [(24, 4), (30, 4), (30, 3), (30, 4)]
    assert table.times_s[1] == table.times_s[3]
    root = ET.parse(summary.path / "sweep_few.svg").getroot()
    assert root.tag.endswith("svg")


def test_a_single_test_set_lies_behind_the_inner_ones():
    case = dataclasses.replace(CASE, held_out=6)
    (fold,) = solver._folds(case)
    np.testing.assert_array_equal(fold.outer.test, np.arange(30, 36))
    np.testing.assert_array_equal(np.concatenate([x.test for x in fold.inner]), np.arange(30))
    assert len(fold.inner) == 3
    with pytest.raises(InputError, match="n must be >= 37, got 36"):
        dataclasses.replace(CASE, held_out=31)


@pytest.mark.slow
def test_targets_on_disk_one_test_set_and_several_layers(job):
    case = dataclasses.replace(CASE, on_disk=True, peers=(), held_out=6, num_layers=2)
    config = solver.Config(cases={"disk": case})
    (case, _) = tiny.make(solver.plan(config, job, {}))
    table = rows(case)
    assert table.on_disk.tolist() == [True]
    assert table.num_checked.tolist() == [12] and (table.layers_s > 0).all()
    assert (table.reference_max_dr < 1e-4).all()
    assert not list(case.path.glob("inputs.*"))


def call(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "jaxalign.main", *arguments],
        cwd=REPOSITORY,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_run_from_the_command_line(tmp_path):
    """Once measured, always measured, until a setting changes."""
    (tmp_path / "few.py").write_text(CONFIGURATION)
    arguments = [f"--config={tmp_path / 'few.py'}", f"--workdir={tmp_path / 'work'}"]
    first = call(*arguments)
    assert first.returncode == 0, first.stderr
    lines = [line.split() for line in first.stdout.splitlines()]
    assert [x[7] for x in lines if x[:1] == ["small"]] == ["jaxalign", *PEERS]
    assert "p (features), numpy: slope" in first.stdout
    folder = tmp_path / "work/bench"
    assert {"cases.csv", "sweep_few.csv", "sweep_few.svg", "summary.txt"} <= {
        x.name for x in folder.iterdir()
    }
    again = call(*arguments)
    assert "Nothing to compute" in again.stderr
    assert again.stdout == first.stdout
    other = call(*arguments, "--config.bench.cases.small.num_alphas=3")
    assert "bench small: done" in other.stderr
    assert "bench few: up to date" in other.stderr


@pytest.mark.slow
def test_cases_are_chosen_and_overridden_by_flags(tmp_path):
    (tmp_path / "few.py").write_text(CONFIGURATION)
    result = call(
        f"--config={tmp_path / 'few.py'}",
        "--config.bench.cases.small.peers=('numpy',)",
        "--config.bench.cases.small.v=7",
        "--dry_run",
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert "--config.bench.cases.small.v=7" in lines
    assert "--config.bench.sweeps.few.p=(3, 4)" in lines
    assert any(
        x.startswith("bench small: to do") and "v=7" in x and "against numpy" in x for x in lines
    )


def published(argument=""):
    space = {}
    exec((REPOSITORY / "configs/bench_solver.py").read_text(), space)
    return space["get_config"](argument)


def test_published_cases_are_chosen_by_name():
    _, stages = config_lib.unpack(published("grid,scaling"))
    assert list(stages["bench"].cases) == ["grid"]
    assert list(stages["bench"].sweeps) == ["scaling"]
    assert stages["bench"].cases["grid"].search == "grid"
    packed = published()
    common, stages = config_lib.unpack(packed)
    assert config_lib.pack(common, **stages).to_dict() == packed.to_dict()
    with pytest.raises(InputError, match="takes base, .*scaling, got 'bse'"):
        published("bse")


def test_absent_packages_are_named_before_anything_runs(job, monkeypatch):
    monkeypatch.setitem(sys.modules, "himalaya", None)
    case = dataclasses.replace(CASE, peers=("numpy", "himalaya_kernel"))
    with pytest.raises(InputError, match=r"'himalaya_kernel', which needs himalaya.*\[bench\]"):
        solver.plan(solver.Config(cases={"small": case}), job, {})


def test_other_stages_need_a_dataset():
    packed = published()
    with packed.unlocked():
        packed.report = {"title": "x"}
    with pytest.raises(InputError, match="dataset must be given: report read one"):
        config_lib.unpack(packed)


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"num_folds": 2}, "num_folds must be >= 3, got 2"),
        ({"n": 5}, "n must be >= 6, got 5"),
        ({"p": 0}, "p must be >= 1"),
        ({"v": 0}, "v must be >= 1"),
        ({"num_alphas": 0}, "num_alphas must be >= 1"),
        ({"num_repeats": 0}, "num_repeats must be >= 1"),
        ({"peer_repeats": 0}, "peer_repeats must be >= 1"),
        ({"low": 5.0}, "low must be below high, got 5.0 and 5.0"),
        ({"decay": -1.0}, "decay must be >= 0"),
        ({"search": "fast"}, "search must be one of adaptive, grid, bound, got 'fast'"),
        ({"peers": ("numpy", "scipy")}, "peers must be among .*, got 'scipy'"),
        ({"on_disk": True}, r"peers must be \(\) for targets on disk"),
    ],
)
def test_cases_out_of_range(settings, message):
    row = dataclasses.asdict(CASE) | settings
    with pytest.raises(InputError, match=f"bench.cases.small.{message}"):
        solver.Config(cases={"small": row})


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"p": ()}, "p must hold ascending sizes"),
        ({"p": (4, 3)}, "p must hold ascending sizes"),
        ({"n": (2, 30)}, "n=2: n must be >= 6, got 2"),
        ({"peers": ("scipy",)}, "p=3: peers must be among"),
    ],
)
def test_sweeps_out_of_range(settings, message):
    row = dataclasses.asdict(SWEEP) | settings
    with pytest.raises(InputError, match=f"bench.sweeps.few.{message}"):
        solver.Config(cases={}, sweeps={"few": row})


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"cases": {}}, "bench must have a case or a sweep"),
        ({"cases": {"a/b": CASE}}, "bench.cases must be named by words, got 'a/b'"),
        ({"num_checked": 0}, "bench.num_checked must be >= 1"),
        ({"sweeps": {"small": SWEEP}}, "must differ, both have 'small'"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(InputError, match=message):
        solver.Config(**({"cases": {"small": CASE}} | settings))


def test_no_setting_of_a_case_is_dead():
    source = pathlib.Path(solver.__file__).read_text()
    for kind in (solver.Case, solver.Sweep):
        for field in dataclasses.fields(kind):
            assert any(f"{x}.{field.name}" in source for x in ("case", "self")) or (
                field.name in solver.AXES
            ), field.name


def test_ties_are_two_least_errors_within_a_ten_thousandth():
    curve = np.array([2.0, 1.0, 1.00005, 3.0])
    clear = np.array([2.0, 1.0, 1.0002, 3.0])
    same = np.array([1.0, 1.0, 1.0, 1.0])
    errors = np.stack([curve, clear, same], axis=1)[None]
    assert solver.is_tied(errors).tolist() == [[True, False, True]]
    # Units do not matter, and a single penalty is never a tie.
    assert solver.is_tied(1e-9 * errors).tolist() == [[True, False, True]]
    assert solver.is_tied(errors[:, :1]).tolist() == [[False, False, False]]


def test_agreement_by_hand():
    grid = np.log([1.0, 10.0, 100.0])
    r = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, np.nan]])
    ours = peers.Solution(r, np.array([[1.0, 10.0, 100.0], [1.0, 1.0, 1.0]]))
    theirs = peers.Solution(
        r + [[0.01, 0.3, -0.02], [0, 0, 0]],
        np.array([[1.0000001, 100.0, 99.99999], [1.0, 10.0, 1.0]]),
    )
    # Checked: the first and the second target; the second is a tie in the second fold.
    untied = np.array([[True, True], [True, False]])
    found = solver.agreement(theirs, ours, grid, np.array([0, 1]), untied)
    assert found["same_share"] == pytest.approx(4 / 6)
    assert found["same_untied_share"] == pytest.approx(2 / 3)
    assert found["max_dr"] == pytest.approx(0.02)
    nothing = solver.agreement(theirs, ours, grid, np.array([0]), np.zeros((2, 1), bool))
    assert np.isnan(nothing["same_untied_share"])
