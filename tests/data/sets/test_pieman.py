"""Pie Man: format, the real file, and what is refused."""

import numpy as np
import published_files as published
import pytest
import scipy.io
from refusals import refused

from jaxalign.data import datasets
from jaxalign.data.sets import pieman
from jaxalign.data.sets.pieman import PieMan


def test_each_subject_has_all_nodes(tmp_path, rng):
    path, tables = published.pie_man(tmp_path, rng)
    found = PieMan(root=tmp_path, verify=False).responses()
    np.testing.assert_array_equal(found.values[:, 4:8], tables[1])
    assert found.subject == ["s01"] * 4 + ["s02"] * 4 + ["s03"] * 4
    assert found.target[4:6] == ["node001", "node002"]
    np.testing.assert_array_equal(found.time_s, [0, 1.5, 3, 4.5, 6, 7.5])
    assert found.tr_s == 1.5 and PieMan.timed
    assert PieMan(root=tmp_path).files() == [path]


def test_it_has_no_stimuli(tmp_path, rng):
    published.pie_man(tmp_path, rng)
    with refused("data set pieman has no stimuli: it has responses"):
        _ = datasets.find("pieman", tmp_path).stimuli


def test_another_file_is_refused(tmp_path, rng):
    path, _ = published.pie_man(tmp_path, rng)
    with refused(path, "subjects must be 36 as in the published Pie Man, found 3"):
        _ = datasets.find("pieman", tmp_path).responses


@pytest.mark.parametrize("kept", [0, 50, 300, 0.5, 0.98])
def test_a_truncated_file_is_refused(tmp_path, rng, kept):
    path, _ = published.pie_man(tmp_path, rng, num_trs=60)
    content = path.read_bytes()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with refused(path, "must be a whole MATLAB file"):
        PieMan(root=tmp_path, verify=False).responses()


@pytest.mark.parametrize(
    "shape,parts",
    [((5, 4), "(5, 4)"), ((6, 3), "(6, 3)")],
)
def test_a_table_of_another_size_is_named(tmp_path, rng, shape, parts):
    tables = [rng.normal(size=(6, 4)), rng.normal(size=shape)]
    path, _ = published.pie_man(tmp_path, rng, tables=tables)
    with refused(path, "weights{2} must be numbers in TRs x nodes as the first", parts):
        PieMan(root=tmp_path, verify=False).responses()


def test_text_in_the_place_of_a_table_is_refused(tmp_path, rng):
    path, _ = published.pie_man(tmp_path, rng, tables=[np.array(["a", "b"]), rng.normal(size=(2,))])
    with refused(path, "weights{1} must be numbers"):
        PieMan(root=tmp_path, verify=False).responses()


def test_another_variable_is_refused(tmp_path, rng):
    path, tables = published.pie_man(tmp_path, rng)
    scipy.io.savemat(path, {"data": tables[0]})
    with refused(path, "must hold the variable 'weights', found ['data']"):
        PieMan(root=tmp_path, verify=False).responses()
    scipy.io.savemat(path, {"weights": tables[0]})
    with refused(path, "weights must be a cell array", "float32 of shape (6, 4)"):
        PieMan(root=tmp_path, verify=False).responses()


def test_nan_and_copies_are_named(tmp_path, rng):
    tables = [rng.normal(size=(6, 4)) for _ in range(3)]
    path, _ = published.pie_man(tmp_path, rng, tables=[*tables, tables[1]])
    with refused(path, "two subjects must differ: those of 's02' and 's04' are identical"):
        PieMan(root=tmp_path, verify=False).responses()
    tables[2][3:, 1] = np.nan
    cells = np.empty((1, 3), dtype=object)
    cells[0, :] = tables
    scipy.io.savemat(path, {"weights": cells})
    with refused(path, "must be finite, found 3", "nan at sample 3 of subject 's03'"):
        PieMan(root=tmp_path, verify=False).responses()


def test_a_missing_file_is_named(tmp_path):
    with refused(tmp_path / pieman.FILE, "it is missing"):
        PieMan(root=tmp_path, verify=False).responses()


def test_the_real_file(data_root):
    """People who hear the same story resemble the mean of the others."""
    if not (data_root / pieman.FILE).is_file():
        pytest.skip(f"{data_root / pieman.FILE} is not there")
    found = datasets.find("pieman", data_root).responses
    assert found.values.shape == (300, 3600)
    cube = found.values.reshape(300, 36, 100)
    cube = (cube - cube.mean(axis=0)) / cube.std(axis=0)
    others = (cube.sum(axis=1, keepdims=True) - cube) / 35
    own = ((cube * others).mean(axis=0) / others.std(axis=0)).mean(axis=0)  # [100]
    assert own.max() > 0.4
    assert 0.05 < own.mean() < 0.3
