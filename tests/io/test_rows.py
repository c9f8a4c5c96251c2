"""Score rows: a strict schema in both directions, and nothing lost on the way through a file."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxalign.errors import InputError
from jaxalign.io import rows


def row(**changes):
    """Return a row with a value of the right type in every column."""
    plain = {pa.string(): "text", pa.int32(): 3, pa.float64(): 0.25}
    made = {f.name: plain.get(f.type, [0.1, 0.2, 0.3]) for f in rows.SCHEMA}
    return made | {"schema_version": rows.SCHEMA_VERSION} | changes


@pytest.fixture
def path(tmp_path):
    return tmp_path / "scores.parquet"


def test_rows_come_back(path):
    written = [row(model="one", score=0.1 + 0.2), row(model="zwölf", layer=7, subject="")]
    rows.write(path, written)
    frame = rows.read(path)
    assert list(frame.columns) == rows.SCHEMA.names
    for name in rows.SCHEMA.names:
        for found, expected in zip(frame[name], (r[name] for r in written), strict=True):
            if name in rows.LISTS:
                np.testing.assert_array_equal(found, expected)
            else:
                assert found == expected
    assert frame["layer"].dtype == np.int32 and frame["score"].dtype == np.float64


def test_nan_survives(path):
    """An undefined score is NaN, alone and inside a list; it is not a missing value."""
    rows.write(path, [row(score=math.nan, ceiling=math.inf, fold_scores=[0.5, math.nan])])
    frame = rows.read(path)
    assert math.isnan(frame["score"][0]) and frame["ceiling"][0] == math.inf
    np.testing.assert_array_equal(frame["fold_scores"][0], [0.5, math.nan])
    assert pq.read_table(path)["score"].null_count == 0


@pytest.mark.parametrize("values", [[], [1.0], list(np.linspace(-1, 1, 300))], ids=len)
def test_lists_survive(path, values):
    rows.write(path, [row(**dict.fromkeys(rows.LISTS, values)), row()])
    frame = rows.read(path)
    assert {"fold_scores", "fold_r2", "fold_inner_r2", "fold_alphas"} <= set(rows.LISTS)
    for name in rows.LISTS:
        np.testing.assert_array_equal(frame[name][0], values)
        np.testing.assert_array_equal(frame[name][1], [0.1, 0.2, 0.3])


def test_numpy_scalars_are_numbers(path):
    rows.write(path, [row(score=np.float64(0.5), layer=np.int64(2), fold_r2=np.ones(2))])
    frame = rows.read(path)
    assert (frame["score"][0], frame["layer"][0], list(frame["fold_r2"][0])) == (0.5, 2, [1, 1])


def test_no_rows_keep_their_columns(path):
    rows.write(path, [])
    frame = rows.read(path)
    assert len(frame) == 0 and list(frame.columns) == rows.SCHEMA.names


def test_file_says_its_schema_version(path):
    rows.write(path, [row()])
    assert pq.read_schema(path).metadata[b"jaxalign.schema_version"] == (
        str(rows.SCHEMA_VERSION).encode()
    )
    assert pq.read_schema(path).equals(rows.SCHEMA)


def test_writing_again_replaces(path):
    rows.write(path, [row(), row()])
    rows.write(path, [row(model="new")])
    assert list(rows.read(path)["model"]) == ["new"]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("column", ["score", "roi", "fold_scores", "schema_version"])
def test_missing_column_is_refused(path, column):
    short = row()
    del short[column]
    with pytest.raises(pa.ArrowInvalid, match=f"columns must match the schema.*{column}"):
        rows.write(path, [row(), short])
    assert not path.exists()


def test_extra_column_is_refused(path):
    with pytest.raises(pa.ArrowInvalid, match="columns must match the schema.*noise"):
        rows.write(path, [row(noise=1)])
    assert not path.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"score": "high"},
        {"model": 3},
        {"layer": "2"},
        {"layer": 1.5},
        {"layer": 2**40},
        {"fold_scores": 0.5},
        {"fold_scores": ["a"]},
    ],
    ids=str,
)
def test_value_of_another_type_is_refused(path, changes):
    """Never made to fit: 1.5 layers are not one layer."""
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        rows.write(path, [row(**changes)])
    assert not path.exists()


@pytest.mark.parametrize(
    "metadata,found",
    [
        ({"jaxalign.schema_version": "0"}, "0"),
        ({"other": str(rows.SCHEMA_VERSION)}, "none"),
        (None, "none"),
    ],
    ids=["older", "another's", "bare"],
)
def test_another_schema_version_is_refused(path, metadata, found):
    table = pa.Table.from_pylist([row()], schema=rows.SCHEMA)
    pq.write_table(table.replace_schema_metadata(metadata), path)
    with pytest.raises(InputError, match=f"must be {rows.SCHEMA_VERSION}, found {found}") as info:
        rows.read(path)
    assert str(path) in str(info.value) and "\n" not in str(info.value)


def test_rows_of_partitions_have_a_schema_of_their_own(path):
    plain = {pa.string(): "text", pa.int32(): 3, pa.float64(): 0.25}
    made = {field.name: plain[field.type] for field in rows.PARTITION}
    rows.write(path, [made], rows.PARTITION)
    frame = rows.read(path)
    assert list(frame.columns) == rows.PARTITION.names
    assert frame.omega.tolist() == [0.25]
    with pytest.raises(pa.ArrowInvalid, match="columns must match the schema"):
        rows.write(path, [made])
    with pytest.raises(pa.ArrowInvalid, match="columns must match the schema"):
        rows.write(path, [row()], rows.PARTITION)
