import json

import pyarrow as pa
import pytest

from jaxalign.io import rows as rows_lib
from jaxalign.results import finished

SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("model", "fingerprint", "git_commit", "versions")]
    + [("schema_version", pa.int32()), ("score", pa.float64())],
    metadata={"jaxalign.schema_version": str(rows_lib.SCHEMA_VERSION)},
)
COMMON = finished.provenance("0123", "numpy") | {"model": "net", "metric": "not of this schema"}


def test_rows_get_the_common_columns_of_their_schema(tmp_path):
    path = tmp_path / "rows.parquet"
    finished.write(path, [{"score": 0.5}, {"score": 0.25, "model": "other"}], COMMON, SCHEMA)
    found = rows_lib.read(path)
    assert found.model.tolist() == ["net", "other"] and found.score.tolist() == [0.5, 0.25]
    assert set(found.fingerprint) == {"0123"}
    assert set(json.loads(found.versions[0])) == {"jaxalign", "numpy"}


@pytest.mark.parametrize("row", [{}, {"score": 0.5, "more": 1}])
def test_a_row_of_other_columns_is_refused(tmp_path, row):
    with pytest.raises(pa.ArrowInvalid, match="columns must match the schema"):
        finished.write(tmp_path / "rows.parquet", [row], COMMON, SCHEMA)
