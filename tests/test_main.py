"""The command line: what a user sees of a bad call, and what is left behind."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest
import small

LLAMA = f"('{small.LLAMA}',)"
REPOSITORY = pathlib.Path(__file__).resolve().parents[1]


def call(*arguments, cwd=REPOSITORY, **environment):
    """Run the entry point in a process of its own."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu"} | environment
    return subprocess.run(
        [sys.executable, "-m", "jaxalign.main", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


BAD_CALLS = [
    ([], "--config must name a configuration file"),
    (["--config=configs/none.py"], "there is no file 'configs/none.py'"),
    (["--config=configs/demo.py", "more"], "only flags are understood, got argument 'more'"),
    (["--config=configs/demo.py", "--cofnig=1"], "Unknown command line flag 'cofnig'"),
    (
        ["--config=configs/demo.py", "--config.encode.nm_folds=4"],
        "--config.encode.nm_folds: there is no such setting; did you mean num_folds?",
    ),
    (
        ["--config=configs/demo.py", "--config.encod.num_folds=4"],
        "--config.encod.num_folds: there is no such setting; did you mean encode?",
    ),
    (
        ["--config=configs/demo.py", "--config.encode.num_folds=four"],
        "--config.encode.num_folds=four",
    ),
    (
        ["--config=configs/demo.py", "--config.encode.num_folds=2"],
        "encode.num_folds must be >= 3, got 2",
    ),
    (
        ["--config=configs/demo.py", "--config.encode.delays=(1.5,)"],
        "encode.delays must hold integers, got 1.5",
    ),
    (
        ["--config=configs/demo.py", "--config.encode.alphas=('a',)"],
        "encode.alphas must hold numbers, got 'a'",
    ),
    (
        [
            "--config=configs/demo.py",
            "--config.encode.num_folds=4",
            "--config.encode.num_fold=4",
        ],
        "--config.encode.num_fold: there is no such setting; did you mean num_folds?",
    ),
    (["--config=configs/demo.py", "--config.mesh=(3,1)"], "mesh must use every device"),
    (
        ["--config=configs/demo.py", "--config.extract.models=('gpt17',)"],
        "model must be a name in the table",
    ),
    (["--config=configs/demo.py", "--config.dataset=nowhere"], "dataset must be one of demo"),
    (["--config=configs/alice.py"], "give --data_root or set JAXALIGN_DATA"),
    (["--config=configs/alice.py:gpt2-small,talk"], "configs/alice.py:MODEL or :MODEL,chat, got"),
    (["--config=configs/alice.py", "--download"], "--download knows blank2014"),
    (["--config=configs/alice.py", "--data_root=/no/such"], "data_root must be a directory"),
]


@pytest.fixture(scope="module")
def bad_calls(tmp_path_factory):
    """What each of the bad calls ended with, and its work directory."""
    root = tmp_path_factory.mktemp("bad")
    given = [[*x, f"--workdir={root / str(i)}"] for i, (x, _) in enumerate(BAD_CALLS)]
    done = subprocess.run(
        [sys.executable, REPOSITORY / "tests/support/forked_calls.py"],
        cwd=REPOSITORY,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "JAXALIGN_DATA": ""},
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return [(*x, root / str(i)) for i, x in enumerate(json.loads(done.stdout))]


@pytest.mark.parametrize("number", range(len(BAD_CALLS)), ids=[x[1][:40] for x in BAD_CALLS])
def test_bad_call_is_one_line(bad_calls, number):
    """Exit code 2, one line on stderr that says what must hold, and nothing written."""
    code, out, error, workdir = bad_calls[number]
    assert code == 2
    assert out == ""
    assert error.count("\n") == 1
    assert error.startswith("error: ")
    assert BAD_CALLS[number][1] in error
    assert not workdir.exists()


def test_bad_call_of_a_process_of_its_own():
    result = call("--config=configs/demo.py", "--cofnig=1")
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith("error: Unknown command line flag 'cofnig'")
    assert result.stderr.count("\n") == 1


@pytest.mark.slow
def test_read_only_workdir(tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o555)
    for workdir in (locked, locked / "below"):
        result = call("--config=configs/demo.py", f"--workdir={workdir}")
        assert result.returncode == 2
        assert f"error: workdir must be writable: {locked} is read-only" in result.stderr
    assert list(locked.iterdir()) == []


def test_dry_run_shows_settings_and_plan(tmp_path):
    """All settings, each as the flag that overrides it; each stage with its cost; no work."""
    workdir = tmp_path / "work"
    result = call(
        "--config=configs/demo.py",
        f"--workdir={workdir}",
        "--config.encode.num_folds=4",
        "--dry_run",
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert "--config.encode.num_folds=4" in lines
    assert "--config.simulate.layer=4" in lines
    plan = lines[lines.index("# Plan") :]
    for stage, cost in (
        ("extract all-MiniLM-L6-v2: to do", "GFLOP"),
        ("simulate all-MiniLM-L6-v2 layer 4: to do", "MB"),
        ("encode all-MiniLM-L6-v2 untrained: to do", "10 training sets"),
        ("report: to do", "tables"),
    ):
        assert any(line.startswith(stage) and cost in line for line in plan), stage
    assert not workdir.exists()


@pytest.mark.slow
def test_ctrl_c_is_one_line(tmp_path):
    """What was begun goes on with the same command, and no traceback says otherwise."""
    arguments = ["--config=configs/demo.py", f"--workdir={tmp_path / 'work'}"]
    # A shell's background jobs, and so what they start, are deaf to the signal.
    hears = "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    run = "runpy.run_module('jaxalign.main', run_name='__main__', alter_sys=True)"
    command = [sys.executable, "-c", hears + run, *arguments]
    with subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        for line in process.stderr:
            if "stimuli in" in line:
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert rest.splitlines()[-1].startswith("interrupted: what is finished is kept; the same comm")
    assert "Traceback" not in rest


@pytest.mark.slow
def test_a_run_is_named_by_its_data_and_models(tmp_path):
    """So that another model does not take the place of the first one's report."""
    data = small.write(tmp_path / "data", num_passages=12)
    arguments = ["--config=configs/ceilings.py:demo", "--dry_run"]
    assert f"workdir: {REPOSITORY / 'runs/ceilings-demo'}\n" in call(*arguments).stdout
    arguments = [f"--config=configs/own.py:{data},{small.BERT}", "--dry_run"]
    other = f"--config.extract.models=('early={small.LLAMA}',)"
    named = [call(*arguments, *more).stdout for more in ([], [other])]
    for name, text in zip(("own-data-bert", "own-data-bert-early"), named, strict=True):
        own = re.escape(str(REPOSITORY / "runs" / name))
        assert re.search(f"^workdir: {own}-[0-9a-f]{{6}}$", text, re.MULTILINE)
