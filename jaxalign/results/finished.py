"""Finished rows: provenance and other columns that all rows of an artefact have in common."""

import json
import pathlib
from collections.abc import Iterable

import pyarrow as pa

from jaxalign.io import rows as rows_lib
from jaxalign.io import run_dir


def provenance(fingerprint: str, *packages: str) -> dict:
    """Return the columns that say where a row comes from.

    Args:
      fingerprint: of the artefact that holds the row.
      packages: whose versions are recorded, in addition to jaxalign's.
    """
    return {
        "schema_version": rows_lib.SCHEMA_VERSION,
        "fingerprint": fingerprint,
        "git_commit": run_dir.git_commit(),
        "versions": json.dumps(run_dir.versions(*packages), sort_keys=True),
    }


def finish(rows: Iterable[dict], common: dict, schema: pa.Schema = rows_lib.SCHEMA) -> list[dict]:
    """Give each row the common columns that its schema has.

    Args:
      rows: what differs from row to row; it counts where a common column is there too.
      common: columns that are the same in all, those of `provenance` among them.
      schema: of `io.rows`.
    """
    kept = {name: value for name, value in common.items() if name in schema.names}
    return [kept | row for row in rows]


def write(
    path: pathlib.Path, rows: Iterable[dict], common: dict, schema: pa.Schema = rows_lib.SCHEMA
) -> None:
    """Write finished rows to a Parquet file, checked against their schema.

    Args:
      path: the file.
      rows: see `finish`.
      common: see `finish`.
      schema: see `finish`.

    Raises:
      pa.ArrowInvalid: if a row lacks a column, or has one that the schema lacks.
    """
    rows_lib.write(path, finish(rows, common, schema), schema)
