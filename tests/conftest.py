"""Strict JAX everywhere, four CPU devices, and the fixtures that all tests share."""

import json
import os
import pathlib
import shutil

# One thread per BLAS call: many small eigenproblems are slowed down by threads of their own.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Programs are compiled without the passes that take longest, here and in processes that tests
# start: most run once. On three files that took a fifth of the time. 0 compiles them as for users.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import buckets
import jax
import jaxtyping
import numpy as np
import pytest

# Types and shapes of every call are checked, unless JAXTYPING_DISABLE says otherwise: without the
# hook, 750 tests were collected in 4.7 instead of 7.8 s.
if not jaxtyping.config.jaxtyping_disable:
    jaxtyping.install_import_hook("jaxalign", "beartype.beartype")

from jaxalign.core import mesh as mesh_lib
from jaxalign.io import place

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")

# What cannot be read, of a process that is writing or was killed, or written, on a full disk, is
# compiled once more.
NOT_KEPT = "ignore:Error (reading|writing) persistent compilation cache entry"
REPOSITORY = pathlib.Path(__file__).resolve().parents[1]


def pytest_configure(config):
    """Keep what is compiled, for other processes and later runs; --cache-clear forgets it."""
    config.addinivalue_line("filterwarnings", NOT_KEPT)
    if hasattr(config, "cache"):  # not with -p no:cacheprovider
        jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("compiled")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(scope="module", autouse=True)
def compiled_programs_are_let_go():
    """Forget compiled programs before the kernel's limit on memory maps ends the process.

    Each program holds some ten maps, a process of many test files compiles thousands of programs,
    and Linux allows 65,530 maps. What is forgotten is read again from the cache on disk.
    """
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def record_property(record_property):
    """Record numbers as Python's own: NumPy's cannot pass from a process that runs tests."""

    def plain(value):
        if isinstance(value, dict):
            return {str(name): plain(x) for name, x in value.items()}
        if isinstance(value, (tuple, list)):
            return [plain(x) for x in value]
        return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value

    return lambda name, value: record_property(name, plain(value))


@pytest.fixture(scope="session")
def data_root():
    """Folder of published data; tests that read it are skipped where it is absent."""
    value = os.environ.get("JAXALIGN_DATA")
    if not value:
        pytest.skip("JAXALIGN_DATA is not set: the published data are not here")
    root = pathlib.Path(value)
    if not root.is_dir():
        pytest.skip(f"JAXALIGN_DATA is {value}: there is no such folder")
    return root


@pytest.fixture(scope="session")
def mesh():
    """All four devices along data."""
    return mesh_lib.make_mesh(-1, 1)


@pytest.fixture(scope="session")
def s3_server():
    """URL of a server of S3; tests that need it are skipped where moto is absent."""
    with buckets.serve_s3() as url:
        yield url


@pytest.fixture
def s3(s3_server, monkeypatch):
    """URL of a new bucket, which the environment leads to."""
    buckets.environment(monkeypatch, buckets.s3_environment(s3_server))
    return f"s3://{buckets.make_s3(s3_server)}"


@pytest.fixture(scope="session")
def gs_server():
    """URL of an emulator of Google's store; tests that need it are skipped where it is absent."""
    with buckets.serve_gs() as url:
        yield url


@pytest.fixture
def gs(gs_server, monkeypatch):
    """URL of a new bucket, which the environment leads to."""
    token = {"TENSORSTORE_GCS_HTTP_URL": gs_server, "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token"}
    buckets.environment(monkeypatch, token)
    return f"gs://{buckets.make_gs(gs_server)}"


@pytest.fixture(params=["folder", "s3", "gs"])
def anywhere(request, tmp_path):
    """A place of each kind: a folder, and a prefix of a bucket."""
    if request.param == "folder":
        return place.at(tmp_path)
    return place.at(f"{request.getfixturevalue(request.param)}/some/runs")


@pytest.fixture(scope="session")
def golden():
    """Folder of the golden checkpoints."""
    return REPOSITORY / "tests" / "golden"


@pytest.fixture
def copy_golden(tmp_path, golden):
    """Copy a golden checkpoint, with `config.json` changed; a value `...` removes its key."""

    def copy(name, **changes):
        folder = tmp_path / pathlib.Path(name).name
        shutil.copytree(golden / name, folder)
        config = json.loads((folder / "config.json").read_text()) | changes
        config = {key: value for key, value in config.items() if value is not ...}
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return copy
