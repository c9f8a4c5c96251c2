"""Scans of three subjects, a volume, grayordinates and two surfaces, of the responses of `tiny`."""

import nibabel as nib
import numpy as np
import pandas as pd
import tiny

from jaxalign.data.schema import Responses

# Turned, a little sheared, of unlike voxels, and one axis reversed.
AFFINE = np.array(
    [[-2.0, 0.3, 0, 31.5], [0.2, 2.9, -0.4, -17.25], [0, 0.5, 3.1, 8], [0, 0, 0, 1]], np.float32
).astype(float)
INSIDE = np.array([0, 1, 1, 0, 0, 1, 1, 0, 1, 0, 0, 1]).reshape(2, 3, 2)  # a mask with holes
LEFT, THALAMUS = "CIFTI_STRUCTURE_CORTEX_LEFT", "CIFTI_STRUCTURE_THALAMUS_LEFT"
VERTICES = {"L": np.array([0, 1, 1, 0, 1]), "R": np.array([1, 0, 0, 1])}
VOLUME = "sub-s0_task-tale_space-MNI152NLin6Asym_res-2"
GRAY = "sub-s1_task-tale_space-fsLR_den-91k"
SURFACE = "sub-s2_task-tale_hemi-{}_space-fsaverage5"


def models():
    """Three vertices of a surface of six, and four voxels."""
    surface = nib.cifti2.BrainModelAxis.from_surface([0, 2, 5], 6, name=LEFT)
    voxels = np.argwhere(np.ones((2, 3, 2)))[[0, 3, 4, 9]]
    return surface + nib.cifti2.BrainModelAxis(
        THALAMUS, voxel=voxels, affine=AFFINE, volume_shape=(2, 3, 2)
    )


def write(root, rng):
    """Write a data set, as `images.csv` and what it names."""
    tiny.write_timed(root, rng)
    recorded = Responses.load(root / "responses.npz")
    (root / "responses.npz").unlink()
    signal, runs = recorded.values[:, 0], np.array(recorded.run)
    rows = []

    def series(run, num):
        own = signal[runs == run, None]
        scale = np.linspace(0.1, 2, num)
        return (own * scale + rng.standard_normal((len(own), num))).astype(np.float32)

    mask = nib.Nifti1Image(INSIDE.astype(np.uint8), AFFINE)
    nib.save(mask, root / "mask.nii.gz")
    of_models = (nib.cifti2.ScalarAxis(["mask"]), models())
    marked = np.array([[1, 0, 1, 1, 1, 0, 1]], np.float32)
    nib.save(nib.Cifti2Image(marked, header=of_models), root / "mask.dscalar.nii")
    for side, inside in VERTICES.items():
        array = nib.gifti.GiftiDataArray(inside.astype(np.float32))
        nib.save(nib.gifti.GiftiImage(darrays=[array]), root / f"{side}.shape.gii")
    for run in dict.fromkeys(recorded.run):
        volume = series(run, INSIDE.size).T.reshape(*INSIDE.shape, -1)
        image = nib.Nifti1Image(volume, AFFINE)
        image.set_sform(AFFINE, 4)
        image.header.set_xyzt_units("mm", "sec")
        image.header.set_zooms((*image.header.get_zooms()[:3], recorded.tr_s))
        name = f"{VOLUME}_run-{run}_bold.nii.gz"
        nib.save(image, root / name)
        rows.append(("s0", run, name, "mask.nii.gz", ""))
        axis = nib.cifti2.SeriesAxis(0, recorded.tr_s, volume.shape[-1])
        name = f"{GRAY}_run-{run}_bold.dtseries.nii"
        gray = series(run, 7)
        nib.save(nib.Cifti2Image(gray, header=(axis, models())), root / name)
        rows.append(("s1", run, name, "mask.dscalar.nii", ""))
        for side, inside in VERTICES.items():
            arrays = [nib.gifti.GiftiDataArray(x) for x in series(run, len(inside))]
            name = f"{SURFACE.format(side)}_run-{run}_bold.func.gii"
            nib.save(nib.gifti.GiftiImage(darrays=arrays), root / name)
            rows.append(("s2", run, name, f"{side}.shape.gii", side))
    table = pd.DataFrame(rows, columns=["subject", "run", "image", "atlas", "hemisphere"])
    table = table.assign(targets="voxels", tr_s=recorded.tr_s, start_s=0)
    table.to_csv(root / "images.csv", index=False)
