"""Scores of voxels and vertices as pictures: slices of volumes, and surfaces that nilearn has."""

import importlib.util
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from jaxalign.data.formats import coordinates, grids, map_images
from jaxalign.data.formats.grids import Grid
from jaxalign.reporting.html import Figure

MOST_MAPS = 4  # on a page: surfaces take seconds each
NUM_CUTS = 7
# Its geometry comes with nilearn; that of others is downloaded, and a page needs no network.
SURFACE, NUM_VERTICES = "fsaverage5", 10242
_SIDES = {"L": "left", "R": "right"}
_VIEWS = ("lateral", "medial")
_TINY = float(np.finfo(np.float32).tiny)
_DPI = 130  # of surfaces, which are too many polygons for an SVG


def why_not(images: Sequence[Grid]) -> str:
    """Say why scores cannot be drawn in the images of a subject; "" if they can.

    Args:
      images: a volume, grayordinates, or one or two hemispheres.
    """
    if importlib.util.find_spec("nilearn") is None:
        return "nilearn is not installed: pip install 'jaxalign[brain]'."
    first = images[0]
    if first.kind == grids.CIFTI:
        return "grayordinates are written as maps (python -m jaxalign.maps), and not drawn."
    if first.kind == grids.GIFTI:
        sizes = {len(x) for x in images}
        if {x.space for x in images} != {SURFACE} or sizes != {NUM_VERTICES}:
            return (
                f"surfaces are drawn of {SURFACE}, whose geometry comes with nilearn, where the "
                f"name of the scans says space-{SURFACE}; these have "
                f"{' and '.join(map(str, sorted(sizes)))} vertices of "
                f"{first.space or 'a space that is not named'}."
            )
        if not all(x.hemisphere for x in images):
            return "the hemispheres of surfaces are not named."
    return ""


def draw(
    tables: Sequence[tuple[pd.DataFrame, Sequence[Grid]]],
) -> tuple[list[Figure], list[str]]:
    """Draw the scores of the first subject of each model and data set.

    Colours go from minus to plus the largest absolute score of the data set, so that 0 is in the
    middle, and mean the same in all pictures of it.

    Args:
      tables: of each network its rows in the schema of `io.rows.TARGETS`, and the images of all
        subjects.

    Returns:
      The pictures, and why others are not there.
    """
    kept: list[tuple[pd.DataFrame, list[Grid], int]] = []
    reasons: list[str] = []
    for rows, every in tables:
        subject = every[0].subject
        images = [x for x in every if x.subject == subject]
        own = rows[rows.subject == subject]
        name = f"{rows.model.iloc[0]} on {rows.dataset.iloc[0]}"
        if reason := why_not(images):
            reasons.append(f"{name}: {reason}")
        elif own.score.isna().all():
            reasons.append(f"{name}: no target of subject {subject} has a defined score.")
        elif len(kept) == MOST_MAPS:
            reasons.append(f"{name}: no map is drawn, as {MOST_MAPS} others are.")
        else:
            kept.append((own, images, rows.subject.nunique()))
    limits: dict[str, float] = {}
    for rows, _, _ in kept:
        dataset = rows.dataset.iloc[0]
        limits[dataset] = max(limits.get(dataset, 0.0), float(rows.score.abs().max()))
    return [_figure(*x, limits[x[0].dataset.iloc[0]] or 1.0) for x in kept], reasons


def _figure(rows: pd.DataFrame, images: list[Grid], num_subjects: int, limit: float) -> Figure:
    row = rows.iloc[0]
    asked = f" asked {row.instruction!r}" if row.instruction else ""
    is_surface = images[0].kind == grids.GIFTI
    how = (
        f"Surfaces of {SURFACE}, each from outside and inside"
        if is_surface
        else "Slices from below to above"
    )
    text = (
        f"{how}: {row.metric.replace('_', ' ')} of {row.model}{asked} on {row.dataset} for subject "
        f"{row.subject}, the first of {num_subjects}, the layer chosen inside the training data; "
        "nothing is drawn where there is no target."
    )
    of_target = dict(zip(zip(rows.roi, rows.target, strict=True), rows.score, strict=True))
    values = [x.values(of_target) for x in images]
    name = "_".join(x for x in ("map", row.dataset, row.model, row.instruction) if x)
    drawn = surfaces(images, values, limit) if is_surface else slices(images[0], values[0], limit)
    return Figure(name, text, drawn)


def slices(grid: Grid, values: Float[np.ndarray, " p"], limit: float) -> bytes:
    """Draw a volume in axial slices, on the brain of MNI152 where that is its space.

    Args:
      grid: of voxels.
      values: of each place.
      limit: where colours end.

    Returns:
      An SVG on a ground that can be seen through. Nothing is downloaded.
    """
    import nibabel
    from nilearn import datasets, plotting

    # 0 is where nothing is known.
    shown = map_images.image(grid, np.where(values == 0, _TINY, values), "score")
    volume = nibabel.Nifti1Image(np.nan_to_num(np.asarray(shown.dataobj)), shown.affine)
    is_mni = coordinates.NIFTI.get(grid.code) == coordinates.MNI or "MNI152" in grid.space

    def fill(figure: Any) -> None:
        plotting.plot_stat_map(
            volume,
            bg_img=datasets.load_mni152_template(resolution=2) if is_mni else None,
            display_mode="z",
            cut_coords=_cuts(grid, values),
            threshold=_TINY / 2,
            black_bg=False,
            cmap="RdBu_r",
            vmin=-limit,
            vmax=limit,
            figure=figure,
        )

    return _svg(fill, (10.0, 2.2))


def _cuts(grid: Grid, values: Float[np.ndarray, " p"]) -> list[float]:
    """Return heights of slices, between the lowest and the highest voxel that has a value."""
    known = grid.voxel[np.isfinite(values)]
    z = (known @ grid.affine[:3, :3].T + grid.affine[:3, 3])[:, 2]
    num = min(NUM_CUTS, len(np.unique(z.round(1))))
    cuts = np.unique(np.quantile(z, (np.arange(num) + 0.5) / num).round(1))
    inside = 1e-3 * np.ptp(z)  # nilearn warns of slices outside, of which rounding makes some
    return np.clip(cuts, z.min() + inside, z.max() - inside).tolist()


def surfaces(
    images: Sequence[Grid], values: Sequence[Float[np.ndarray, " p"]], limit: float
) -> bytes:
    """Draw hemispheres of fsaverage5, inflated, each from outside and inside.

    Args:
      images: of each hemisphere.
      values: of all vertices of each.
      limit: where colours end.

    Returns:
      An SVG on a ground that can be seen through. Nothing is downloaded.
    """
    from nilearn import datasets, plotting

    mesh: Any = datasets.fetch_surf_fsaverage(SURFACE)  # lies in the package

    def fill(figure: Any) -> None:
        num = len(images) * len(_VIEWS)
        for i, (grid, own) in enumerate(zip(images, values, strict=True)):
            side = _SIDES[grid.hemisphere]
            for j, view in enumerate(_VIEWS):
                place = figure.add_subplot(1, num, i * len(_VIEWS) + j + 1, projection="3d")
                plotting.plot_surf_stat_map(
                    mesh[f"infl_{side}"],
                    own,
                    hemi=side,
                    view=view,
                    bg_map=mesh[f"sulc_{side}"],
                    cmap="RdBu_r",
                    vmin=-limit,
                    vmax=limit,
                    threshold=0,
                    colorbar=i * len(_VIEWS) + j + 1 == num,
                    axes=place,
                    figure=figure,
                    title=f"{side}, {view}",
                )
                place.patch.set_alpha(0)
                for part in place.collections:
                    part.set_rasterized(True)

    return _svg(fill, (2.6 * 2 * len(images), 2.6))


def _svg(fill: Callable[[Any], None], size: tuple[float, float]) -> bytes:
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context({"svg.hashsalt": "jaxalign", "svg.fonttype": "none"}):
        # One of its own: pyplot would open a window where a notebook has chosen so.
        figure = Canvas(figsize=size)
        fill(figure)
        buffer = io.BytesIO()
        options: dict[str, Any] = {"metadata": {"Date": None}, "transparent": True, "dpi": _DPI}
        figure.savefig(buffer, format="svg", **options)
    return buffer.getvalue()
