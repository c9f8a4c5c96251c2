"""Rows of scores, partitions, tests, ceilings and properties: their schemas and Parquet files."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from jaxalign.errors import InputError
from jaxalign.io import run_dir
from jaxalign.io.place import Place

SCHEMA_VERSION = 5

ALL = "all"  # subject of scores over participants together
PUBLISHED = "published:"  # protocol of scores that were printed; the name of the paper follows

# How a model read the stimuli, beside context, pooling and instruction: settings of `extract`, and
# "" of what is not known (published scores, imported activations) or does not apply (controls that
# read no text). yes or no: `one_stream`, `chat`. `quantization`: to what types the weights had been
# rounded before they were read, as "Q4_1".
READING = (
    *("one_stream", "tap", "joining", "bos", "suffix", "chat", "system"),
    *("t5_text", "compute_dtype", "quantization"),
)
UNKNOWN_READING = dict.fromkeys(("layer_name", "final_norm", *READING), "")
# What a layer is, in rows of every kind that have one.
_LAYER = (
    # "embedding", "block.3"; of two stacks "encoder.3", "decoder.3"; "" where not known.
    ("layer_name", pa.string()),
    # Whether the layer has passed the network's final norm: "yes", "no" or "" as in `READING`.
    ("final_norm", pa.string()),
)
# How the model read the stimuli, in rows of every kind that are of a model's layers.
_READING = (
    ("context", pa.string()),
    ("pooling", pa.string()),
    ("instruction", pa.string()),  # what the model was asked before each part; "": nothing
    *((name, pa.string()) for name in READING),
)

# One row per model x layer x subject x ROI. Lists have one value per outer fold. Of scores that
# were published layer is -1, the best, which is not named, and lists are empty.
SCHEMA = pa.schema(
    [
        ("schema_version", pa.int32()),
        ("dataset", pa.string()),
        ("model", pa.string()),  # of a control: its kind
        ("control_of", pa.string()),  # of a control: the model it is compared with; else ""
        ("layer", pa.int32()),  # 0 is the embedding; 0 too for features without layers
        *_LAYER,
        ("num_layers", pa.int32()),  # blocks of the network; 0 for features without layers
        ("subject", pa.string()),  # "group": the mean over subjects; or `ALL`
        ("roi", pa.string()),
        ("protocol", pa.string()),
        ("folds_hash", pa.string()),
        *_READING,
        # Features of a layer that entered, before delays: components if there is a PCA; 0: unknown.
        ("num_units", pa.int32()),
        ("metric", pa.string()),
        ("score", pa.float64()),  # mean over folds, then over targets; raw, not divided
        ("ceiling", pa.float64()),
        ("ceiling_low", pa.float64()),  # 95 % interval over the folds' test blocks
        ("ceiling_high", pa.float64()),
        # Correlation with the other subjects in each test block; of the group, of its halves.
        ("fold_ceilings", pa.list_(pa.float64())),
        ("ceiling_kind", pa.string()),
        ("signal_ceiling", pa.float64()),  # of simulations: noiseless signal x responses; else NaN
        ("fold_scores", pa.list_(pa.float64())),
        ("r2", pa.float64()),
        ("fold_r2", pa.list_(pa.float64())),
        ("fold_inner_r2", pa.list_(pa.float64())),  # on the inner splits: for choosing a layer
        ("alpha_median", pa.float64()),  # over folds and targets
        ("fold_alphas", pa.list_(pa.float64())),  # median over targets
        ("alpha_low_share", pa.float64()),  # share of (fold, target) at the smallest penalty
        ("alpha_high_share", pa.float64()),  # at the largest
        ("num_targets", pa.int32()),
        ("num_samples", pa.int32()),
        ("num_nan", pa.int32()),  # (fold, target) pairs without a defined score
        ("num_constant_features", pa.int32()),  # most over the folds
        ("fingerprint", pa.string()),
        ("git_commit", pa.string()),
        ("versions", pa.string()),  # JSON
    ],
    metadata={"jaxalign.schema_version": str(SCHEMA_VERSION)},
)

# One row per model x layer x subject x ROI: what the model and a set of controls explain. `r2_...`
# are R2 out of sample (`core/solver/partition.py`), means over the targets where all three are
# defined. In `..._clipped` a negative R2 of a target counts as 0; in the others nothing is clipped.
PARTITION = pa.schema(
    [
        ("schema_version", pa.int32()),
        ("dataset", pa.string()),
        ("model", pa.string()),
        ("controls", pa.string()),  # their names, with " + " between them
        ("layer", pa.int32()),
        *_LAYER,
        ("subject", pa.string()),
        ("roi", pa.string()),
        ("folds_hash", pa.string()),
        *_READING,
        ("r2_model", pa.float64()),
        ("r2_controls", pa.float64()),
        ("r2_joint", pa.float64()),
        ("unique_model", pa.float64()),
        ("unique_controls", pa.float64()),
        ("shared", pa.float64()),
        ("omega", pa.float64()),  # percent; of the means above
        ("r2_model_clipped", pa.float64()),
        ("r2_controls_clipped", pa.float64()),
        ("r2_joint_clipped", pa.float64()),
        ("omega_clipped", pa.float64()),
        ("num_targets", pa.int32()),
        ("num_undefined", pa.int32()),  # targets that are in no mean
        ("num_negative", pa.int32()),  # targets whose R2 of the model is negative
        ("num_samples", pa.int32()),
        ("fingerprint", pa.string()),
        ("git_commit", pa.string()),
        ("versions", pa.string()),
    ],
    metadata={"jaxalign.schema_version": str(SCHEMA_VERSION)},
)

# One row per network x layer x subject x ROI: the score among those of permuted responses. Layer
# -1: the largest of any layer. Subject "mean": the mean over subjects.
SIGNIFICANCE = pa.schema(
    [
        ("schema_version", pa.int32()),
        ("dataset", pa.string()),
        ("model", pa.string()),
        ("control_of", pa.string()),
        ("layer", pa.int32()),
        *_LAYER,
        ("subject", pa.string()),
        ("roi", pa.string()),
        ("protocol", pa.string()),
        ("folds_hash", pa.string()),
        *_READING,
        ("orders", pa.string()),  # "shift", "block" or "row"
        ("num_orders", pa.int32()),
        ("score", pa.float64()),
        ("p", pa.float64()),
        ("p_adjusted", pa.float64()),  # Benjamini-Hochberg over subjects and ROIs of the layer
        ("null_mean", pa.float64()),
        ("null_sd", pa.float64()),
        ("num_targets", pa.int32()),
        # Targets whose own p, adjusted over those of the row, is at most .05; 0 for layer -1 and
        # for the mean over subjects, which have none of their own.
        ("num_significant", pa.int32()),
        ("num_samples", pa.int32()),
        ("fingerprint", pa.string()),
        ("git_commit", pa.string()),
        ("versions", pa.string()),
    ],
    metadata={"jaxalign.schema_version": str(SCHEMA_VERSION)},
)

# One row per network or control x target of a subject: what maps are made of.
TARGETS = pa.schema(
    [
        ("schema_version", pa.int32()),
        ("dataset", pa.string()),
        ("model", pa.string()),  # of a control: its kind
        ("control_of", pa.string()),
        *_READING,
        ("subject", pa.string()),
        ("roi", pa.string()),
        ("target", pa.string()),
        ("space", pa.string()),  # of x, y, z; see data/formats/coordinates.py
        ("x", pa.float64()),  # mm; NaN of a target that lies nowhere
        ("y", pa.float64()),
        ("z", pa.float64()),
        ("protocol", pa.string()),
        ("folds_hash", pa.string()),
        ("metric", pa.string()),
        # Mean over folds; of several layers, that chosen inside the training data of each fold for
        # the subject and ROI.
        ("score", pa.float64()),
        ("protocol_score", pa.float64()),  # as the protocol counts layers and folds; NaN without
        ("r2", pa.float64()),  # as `score`
        ("ceiling", pa.float64()),
        ("ceiling_kind", pa.string()),
        ("alpha", pa.float64()),  # penalty: median over folds, at the layers of `score`
        ("layer", pa.int32()),  # of `score`: that of most folds, of equals the first
        ("best_layer", pa.int32()),  # the target's own, by its inner R2; -1 where undefined
        ("num_nan", pa.int32()),  # folds without a defined score
        ("num_samples", pa.int32()),
        ("fingerprint", pa.string()),
        ("git_commit", pa.string()),
        ("versions", pa.string()),
    ],
    metadata={"jaxalign.schema_version": str(SCHEMA_VERSION)},
)

# One row per network x target of a subject: a test of its largest score of any layer. `score` is of
# the responses that were tested, of which drifts were taken out.
TARGET_SIGNIFICANCE = pa.schema(
    [
        ("schema_version", pa.int32()),
        ("dataset", pa.string()),
        ("model", pa.string()),
        ("control_of", pa.string()),
        *_READING,
        ("subject", pa.string()),
        ("roi", pa.string()),
        ("target", pa.string()),
        ("protocol", pa.string()),
        ("folds_hash", pa.string()),
        ("orders", pa.string()),
        ("num_orders", pa.int32()),
        ("score", pa.float64()),
        ("p", pa.float64()),
        ("p_fdr", pa.float64()),  # Benjamini-Hochberg over the targets of the subject
        ("p_max", pa.float64()),  # by the largest null of any target of the subject
        ("num_samples", pa.int32()),
        ("fingerprint", pa.string()),
        ("git_commit", pa.string()),
        ("versions", pa.string()),
    ],
    metadata={"jaxalign.schema_version": str(SCHEMA_VERSION)},
)

# One row per ceiling: of a target, or of an ROI's targets together; of a subject, or of all.
CEILINGS = pa.schema(
    [
        ("schema_version", pa.int32()),
        ("dataset", pa.string()),
        ("kind", pa.string()),
        ("scale", pa.string()),  # what the value is: "r", "reliability", "variance", "ratio"
        ("subject", pa.string()),  # "group": over subjects
        ("roi", pa.string()),
        ("target", pa.string()),  # "": all of the ROI's
        ("average", pa.string()),  # over the ROI's targets: "mean" or "median"; "" of one target
        ("value", pa.float64()),  # NaN where undefined; `remark` says why
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
        ("interval", pa.string()),  # what it resamples; "": there is none
        ("p", pa.float64()),  # NaN where there is no test
        ("p_adjusted", pa.float64()),  # Benjamini-Hochberg, over targets or over ROIs of the kind
        ("num_subjects", pa.int32()),
        ("num_targets", pa.int32()),
        ("num_undefined", pa.int32()),  # targets, or of one target subjects, that do not count
        ("num_samples", pa.int32()),
        ("remark", pa.string()),
        ("fingerprint", pa.string()),
        ("git_commit", pa.string()),
        ("versions", pa.string()),
    ],
    metadata={"jaxalign.schema_version": str(SCHEMA_VERSION)},
)

# One row per model and property (`literature/properties.py` lists them).
PROPERTIES = pa.schema(
    [
        ("schema_version", pa.int32()),
        ("model", pa.string()),
        ("property", pa.string()),
        ("value", pa.float64()),  # NaN of those that are text
        ("text", pa.string()),  # "" of those that are numbers
        ("source", pa.string()),  # where it is from, and what it overrides
        ("fingerprint", pa.string()),
        ("git_commit", pa.string()),
        ("versions", pa.string()),
    ],
    metadata={"jaxalign.schema_version": str(SCHEMA_VERSION)},
)

# Columns with one value per fold.
LISTS = tuple(field.name for field in SCHEMA if pa.types.is_list(field.type))


def write(path: Place, rows: Sequence[dict], schema: pa.Schema = SCHEMA) -> None:
    """Write rows to a Parquet file, atomically.

    Args:
      path: the file.
      rows: all columns of each.
      schema: `SCHEMA`, `PARTITION`, `SIGNIFICANCE`, `CEILINGS` or `PROPERTIES`.

    Raises:
      pa.ArrowInvalid: if a row lacks a column or holds a value of another type.
    """
    integers = [field.name for field in schema if pa.types.is_integer(field.type)]
    for row in rows:
        if row.keys() != set(schema.names):
            raise pa.ArrowInvalid(
                f"columns must match the schema: {row.keys() ^ set(schema.names)}"
            )
        # Arrow would cut the fraction off.
        for name in integers:
            if int(row[name]) != row[name]:
                raise pa.ArrowInvalid(f"{name} must be an integer, got {row[name]}")
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), sink)
    run_dir.write_atomic(path, sink.getvalue().to_pybytes())


def write_columns(
    path: Place, columns: Mapping[str, Sequence], common: Mapping[str, Any], schema: pa.Schema
) -> None:
    """Write rows of which there may be a million, column by column; else as `write`.

    Args:
      path: the file.
      columns: what differs from row to row, all of one length.
      common: what all rows share; what the schema lacks is left out.
      schema: `TARGETS` or `TARGET_SIGNIFICANCE`.

    Raises:
      KeyError: if a column is missing.
    """
    num = len(next(iter(columns.values())))
    arrays = [
        pa.array(columns[field.name], field.type)
        if field.name in columns
        else pa.repeat(pa.scalar(common[field.name], field.type), num)
        for field in schema
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), sink)
    run_dir.write_atomic(path, sink.getvalue().to_pybytes())


def frame(rows: Sequence[dict]) -> pd.DataFrame:
    """Return score rows as the frame that `read` gives of them.

    Args:
      rows: all columns of each.
    """
    return pa.Table.from_pylist(rows, schema=SCHEMA).to_pandas()


def read(path: Place) -> pd.DataFrame:
    """Read rows into a frame.

    Raises:
      InputError: if the file cannot be read, or has another schema version.
    """
    try:
        with path.open("rb") as file:
            table = pq.read_table(file)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(
            f"{path} must be a Parquet file of score rows: {str(error).splitlines()[0]}; delete "
            f"{path.parent} and run again."
        ) from error
    found = (table.schema.metadata or {}).get(b"jaxalign.schema_version", b"none").decode()
    if found != str(SCHEMA_VERSION):
        raise InputError(
            f"{path}: schema version must be {SCHEMA_VERSION}, found {found}; run it again with "
            "this version of jaxalign."
        )
    return table.to_pandas()


def write_table(path: Place, table: pd.DataFrame) -> None:
    """Write a table without a schema of its own twice, atomically: as CSV and as Parquet.

    CSV is for people and other programs; `read_table` reads Parquet, where an ROI called NA is a
    name and a number is the same to the last digit.

    Args:
      path: without suffix.
      table: of numbers and text; undefined numbers are NaN ("nan" in the CSV).
    """
    text = table.to_csv(index=False, na_rep="nan", lineterminator="\n")
    run_dir.write_atomic(path.with_name(f"{path.name}.csv"), text.encode())
    sink = io.BytesIO()
    table.to_parquet(sink, index=False)
    run_dir.write_atomic(path.with_name(f"{path.name}.parquet"), sink.getvalue())


def has_table(path: Place) -> bool:
    """Whether `write_table` has written a table here."""
    return path.with_name(f"{path.name}.parquet").is_file()


def read_table(path: Place) -> pd.DataFrame:
    """Read the Parquet file that `write_table` has written.

    Args:
      path: without suffix.

    Raises:
      InputError: if the file cannot be read.
    """
    path = path.with_name(f"{path.name}.parquet")
    try:
        with path.open("rb") as file:
            return pq.read_table(file).to_pandas()
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(
            f"{path} must be a Parquet file: {str(error).splitlines()[0]}; delete {path.parent} "
            "and run again."
        ) from error
