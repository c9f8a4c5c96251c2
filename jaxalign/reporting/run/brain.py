"""Scores of targets on a glass brain, for targets with coordinates."""

import importlib.util
import io
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

# Spaces whose coordinates nilearn's outline is drawn for; versions of it differ by millimetres.
MNI = "MNI152"
# Up to so many places each has a marker; more are averaged in cells of a grid, of which the views
# show the largest along each line of sight.
MAX_MARKERS = 500
CELL_MM = 4.0
VIEWS = "lyrz"  # left, coronal, right, from above

# The extent of the grid: all of the outline.
_LOW, _HIGH = np.array([-92.0, -128.0, -74.0]), np.array([92.0, 96.0, 110.0])


def why_not(targets: pd.DataFrame) -> str:
    """Say why scores of targets cannot be drawn; "" if they can.

    Args:
      targets: rows in the schema of `io.rows.TARGETS`.
    """
    if not len(targets):
        return "Targets have no coordinates."
    spaces = sorted(set(targets.space))
    if spaces != [MNI]:
        return (
            f"Targets have coordinates in {', '.join(spaces)} space; a glass brain is drawn for "
            f"{MNI} alone."
        )
    if not (np.isfinite(targets[["x", "y", "z"]]).all(axis=1) & np.isfinite(targets.score)).any():
        return "No target with coordinates has a defined score."
    if importlib.util.find_spec("nilearn") is None:
        return "nilearn is not installed: pip install 'jaxalign[brain]'."
    return ""


def places(targets: pd.DataFrame) -> pd.DataFrame:
    """Average the scores of all subjects at a place: at a target, or in a cell of the grid.

    Args:
      targets: see `why_not`; of one model and data set.

    Returns:
      Columns x, y, z (mm; of a cell its middle), `score`, and `num_targets`, those with a defined
      score, which alone count.
    """
    known = targets[["x", "y", "z", "score"]].dropna()
    xyz = known[["x", "y", "z"]].round(3)
    if len(xyz.drop_duplicates()) > MAX_MARKERS:
        xyz = _LOW + CELL_MM * _cells(xyz.to_numpy())
        xyz = pd.DataFrame(xyz, columns=["x", "y", "z"], index=known.index)
    found = known.score.groupby([xyz.x, xyz.y, xyz.z]).agg(["mean", "size"])
    return found.rename(columns={"mean": "score", "size": "num_targets"}).reset_index()


def largest(targets: pd.DataFrame) -> float:
    """Return the largest absolute score of a view, for the colours of all that are compared.

    Args:
      targets: see `glass_brain`.
    """
    return float(places(targets).score.abs().max())


def glass_brain(targets: pd.DataFrame, limit: float | None = None) -> bytes:
    """Draw scores on a glass brain, from four sides, on a ground that can be seen through.

    Up to `MAX_MARKERS` places are markers; more are cells of a grid of `CELL_MM`. Colours go from
    minus to plus the limit, so that 0 is in the middle.

    Args:
      targets: rows in the schema of `io.rows.TARGETS`, of one model and data set.
      limit: where colours end; None: the largest absolute score.

    Returns:
      An SVG. Nothing is downloaded: the outline comes with nilearn.

    Raises:
      ValueError: if they cannot be drawn, with the reason that `why_not` gives.
    """
    if reason := why_not(targets):
        raise ValueError(reason)
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "jaxalign", "svg.fonttype": "none"}):
        figure = _draw(places(targets), limit or largest(targets) or 1.0)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    return buffer.getvalue()


def _draw(found: pd.DataFrame, limit: float) -> Any:
    # Half a second to import where files are cached, several where they are not.
    import nibabel
    from matplotlib.figure import Figure
    from nilearn import plotting

    xyz = found[["x", "y", "z"]].to_numpy()
    # One of its own: pyplot would open a window where a notebook has chosen so.
    figure = Figure(figsize=(10, 2.6))
    options = {"display_mode": VIEWS, "figure": figure}
    if len(found) <= MAX_MARKERS:
        plotting.plot_markers(
            found.score.to_numpy(),
            xyz,
            node_size=16,
            node_cmap="RdBu_r",
            node_vmin=-limit,
            node_vmax=limit,
            **options,
        )
        return figure
    shape = _cells(_HIGH[None])[0] + 1
    volume = np.zeros(shape, np.float32)
    # 0 is where nothing is known.
    score = found.score.to_numpy()
    volume[tuple(_cells(xyz).T)] = np.where(score == 0, np.finfo(np.float32).tiny, score)
    affine = np.diag([CELL_MM, CELL_MM, CELL_MM, 1.0])
    affine[:3, 3] = _LOW
    plotting.plot_glass_brain(
        nibabel.Nifti1Image(volume, affine),
        threshold=0,
        plot_abs=False,
        colorbar=True,
        cmap="RdBu_r",
        vmin=-limit,
        vmax=limit,
        **options,
    )
    return figure


def _cells(xyz: Float[np.ndarray, "p 3"]) -> Int[np.ndarray, "p 3"]:
    """Return the cell of each place; those outside the grid fall into its outermost cells."""
    inside = np.clip(xyz, _LOW, _HIGH)
    return np.rint((inside - _LOW) / CELL_MM).astype(int)
