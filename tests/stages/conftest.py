"""Jobs on small data sets."""

import pytest
import tiny

from jaxalign.data import datasets
from jaxalign.stages import Job


@pytest.fixture
def make_job(tmp_path, mesh):
    """Return a function from a data directory to a job."""

    def make(data, *, workdir="work", mesh=mesh):
        return Job(
            workdir=tmp_path / workdir,
            data_root=None,
            dataset=datasets.find(str(data), None),
            mesh=mesh,
            seed=0,
        )

    return make


@pytest.fixture
def timed(tmp_path, rng):
    root = tmp_path / "timed"
    tiny.write_timed(root, rng)
    return root


@pytest.fixture
def sentences(tmp_path, rng):
    root = tmp_path / "sentences"
    tiny.write_sentences(root, rng)
    return root
