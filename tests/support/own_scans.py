"""A directory of one's own scans, to which tests add images, atlases and rows of the table."""

import nibabel as nib
import numpy as np
from recordings import write_table

from jaxalign.data import datasets

TR_S = 1.5
HEADER = ["subject", "run", "image", "atlas", "targets", "tr_s", "start_s"]
HEADER += ["labels", "hemisphere", "stimuli_start_s"]
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
ATLAS = np.array([0, 1, 2, 2, 5, 0, 1, 5])  # of eight places


class Folder:
    """A directory with stimuli, to which scans are added."""

    def __init__(self, root):
        self.root = root
        self.rows = []
        words = [["a", "The", "p", "r1", 0, 1], ["b", "end", "p", "r2", 0, 1]]
        header = ["stimulus_id", "text", "passage", "run", "onset_s", "offset_s"]
        write_table(root / "stimuli.csv", header, words)
        self.named(range(6))

    def named(self, labels):
        write_table(self.root / "labels.csv", ["label", "roi"], [[i, f"A{i}"] for i in labels])

    def add(self, image, atlas, **cells):
        row = {"subject": "s1", "run": "r1", "image": image, "atlas": atlas, "targets": "voxels"}
        row |= {"tr_s": TR_S, "start_s": 0.5, "labels": "", "hemisphere": ""}
        row |= {"stimuli_start_s": ""} | cells
        self.rows.append([row[name] for name in HEADER])

    def change(self, name, value, row=-1):
        self.rows[row][HEADER.index(name)] = value

    def responses(self):
        write_table(self.root / "images.csv", HEADER, self.rows)
        return datasets.find(str(self.root), None).responses

    def volume(self, name, values, *, affine=AFFINE, tr_s=TR_S, unit="sec", start=0.0):
        """Write places [T 8] as a volume of 2 x 2 x 2 in C order, or [8] as labels."""
        shape = (2, 2, 2)
        grid = values.T.reshape(*shape, -1) if values.ndim == 2 else values.reshape(shape)
        image = nib.Nifti1Image(grid, affine)
        if values.ndim == 2:
            image.header.set_xyzt_units("mm", unit)
            image.header.set_zooms((2.0, 2.0, 2.0, tr_s))
            image.header["toffset"] = start
        nib.save(image, self.root / name)

    def surface(self, name, values, *, names=(), step=None, intent="NIFTI_INTENT_TIME_SERIES"):
        series = [nib.gifti.GiftiDataArray(x, intent=intent) for x in np.atleast_2d(values)]
        table = nib.gifti.GiftiLabelTable()
        for key, label in names:
            entry = nib.gifti.GiftiLabel(key=key)
            entry.label = label
            table.labels.append(entry)
        meta = nib.gifti.GiftiMetaData({} if step is None else {"TimeStep": step})
        image = nib.gifti.GiftiImage(darrays=series, labeltable=table, meta=meta)
        nib.save(image, self.root / name)
