"""Golden files against what their scripts make now, with torch and transformers."""

import importlib.util
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "golden"


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    ["make_models", "make_encoders", "make_decoders", "make_families", "make_multimodal"],
)
def test_scripts_make_what_is_committed(tmp_path, script):
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: golden scripts need it")
    for path in GOLDEN.glob("*.py"):
        shutil.copy(path, tmp_path)
    done = subprocess.run(
        [sys.executable, str(tmp_path / f"{script}.py")],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made = sorted(tmp_path.rglob("expected.npz"))
    assert made
    for path in made:
        committed = GOLDEN / path.relative_to(tmp_path)
        with np.load(path) as new, np.load(committed) as old:
            assert set(new.files) == set(old.files)
            for name in old.files:
                if old[name].dtype.kind != "f":
                    continue
                scale = np.nanmax(np.abs(old[name]), initial=1e-30)
                np.testing.assert_allclose(new[name], old[name], atol=1e-5 * scale, err_msg=name)
        tensors = safetensors.numpy.load_file(path.with_name("model.safetensors"))
        stored = safetensors.numpy.load_file(committed.with_name("model.safetensors"))
        assert set(tensors) == set(stored)
        for name in tensors:
            np.testing.assert_array_equal(tensors[name], stored[name], err_msg=name)
