"""Finished rows: columns that all rows of an artefact share, and the files of a run's rows."""

import json
from collections.abc import Iterable, Sequence

import pyarrow as pa

from jaxalign.io import rows as rows_lib
from jaxalign.io import run_dir
from jaxalign.io.place import Place

ROWS = "rows.parquet"  # score rows of one artefact
REPORT, TABLE = "report", "scores.parquet"  # those of a whole run


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
    path: Place, rows: Iterable[dict], common: dict, schema: pa.Schema = rows_lib.SCHEMA
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


def files(workdir: Place, stages: Sequence[str]) -> list[Place]:
    """Return the files of a run's score rows, of artefacts that are finished.

    Args:
      workdir: of the run.
      stages: whose artefacts count where there is no finished report.

    Returns:
      The report's file, or that of each artefact; nothing where there is neither.

    Raises:
      InputError: if one of them has changed since.
    """
    table = workdir / REPORT / TABLE
    if run_dir.marker(table.parent) and table.is_file():
        found: list[Place] = [table]
    else:
        every = [x for stage in stages for x in sorted(workdir.glob(f"{stage}/*/{ROWS}"))]
        is_done = lambda folder: run_dir.marker(folder).get("fingerprint") == folder.name
        found = [x for x in every if is_done(x.parent)]
    for path in found:
        run_dir.check_whole(path)
    return found
