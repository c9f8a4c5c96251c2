"""R2 of model, controls and both together, by target -> rows of subjects and ROIs."""

import numpy as np
from jaxtyping import Float

from jaxalign.core import features
from jaxalign.core.metrics import mean_defined
from jaxalign.core.solver import partition
from jaxalign.results.targets import Targets


def by_subject_and_roi(r2: Float[np.ndarray, "3 v"], targets: Targets) -> list[dict]:
    """Average R2 over the targets of each subject and ROI, and divide the averages.

    A target enters if all three of its R2 are defined. Ratios are taken of averages: those of
    single targets, many of which are hardly predicted, have no useful mean.

    Args:
      r2: R2 out of sample of the model, of the controls, and of both together.
      targets: subject and ROI of each target.

    Returns:
      A dict for each subject and ROI with the columns of `io.rows.PARTITION` that hold R2, their
      shares and numbers of targets; R2 are NaN where no target is defined.
    """
    known = np.asarray(np.isfinite(r2).all(axis=0))
    rows = []
    places = features.members(list(zip(targets.subject, targets.roi, strict=True)))
    for (subject, roi), of_roi in places.items():
        used = r2[:, of_roi[known[of_roi]]]
        raw, clipped = _shares(used), _shares(np.maximum(used, 0))
        columns = {"omega": raw.omega, "omega_clipped": clipped.omega}
        for name in ("model", "controls", "joint"):
            columns[f"r2_{name}"] = getattr(raw, name)
            columns[f"r2_{name}_clipped"] = getattr(clipped, name)
        for name in ("unique_model", "unique_controls", "shared"):
            columns[name] = getattr(raw, name)
        rows.append(
            {name: float(x) for name, x in columns.items()}
            | {
                "subject": subject,
                "roi": roi,
                "num_targets": len(of_roi),
                "num_undefined": int((~known[of_roi]).sum()),
                "num_negative": int((used[0] < 0).sum()),
            }
        )
    return rows


def _shares(r2: Float[np.ndarray, "3 _"]) -> partition.Shares:
    return partition.shares(*map(np.asarray, mean_defined(r2, axis=1)))
