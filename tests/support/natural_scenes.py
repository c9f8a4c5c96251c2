"""A Natural Scenes Dataset of two people whose voxels answer to what a model says of photographs.

Files have the names and layouts of NSD; grids and pictures are small, and there is one session.
Pictures are cut from two photographs that come with scikit-learn.
"""

import json
import pathlib

import h5py
import nibabel as nib
import numpy as np
import pictured
import tokenizers
from recordings import write_hdf5, write_table
from sklearn import datasets
from tokenizers import models, pre_tokenizers, processors

from jaxalign.data.sets.nsd_rois import LABELS
from jaxalign.literature import published

SUBJECTS = ("subj01", "subj02")
SHAPE = (5, 5, 4)
NUM_SHARED, NUM_OWN, REPEATS = 60, 190, 3  # images, each seen so often: 750 trials
SIDE = 48  # pixels of a picture
RATIO = 1.5  # of the standard deviations of signal and noise of a trial
DEAD = (0, 0, 0)  # a voxel of the first region that measures nothing, of the first subject
# Region -> volume of its labels, and the instructions that its voxels follow, in equal shares.
REGIONS = {
    "pRF-Visual": ("prf-visualrois", ("IU1",)),
    "FLOC-BODIES": ("floc-bodies", ("IC",)),
    "FLOC-FACES": ("floc-faces", ("VQ2",)),
    "FLOC-PLACES": ("floc-places", ("IC", "IU2")),
    "FLOC-WORDS": ("floc-words", ()),
}


def instructions():
    """Return the texts of the ten instructions by their codes."""
    table = published.table("oota2025/instructions")
    return dict(zip(table.code, table.instruction, strict=True))


def write_model(folder: pathlib.Path) -> pathlib.Path:
    """Write a tiny LLaVA with random weights whose tokenizer knows all words of the ten."""
    pictured.write_model(folder, "llava")
    words = ["<unk>", "<s>", "</s>", "USER:", "ASSISTANT:"]
    words += list(dict.fromkeys(x for text in instructions().values() for x in text.split()))
    assert len(words) <= 60
    words += [f"w{i}" for i in range(len(words), 60)] + ["<image>"]
    found = tokenizers.Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    found.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    found.add_special_tokens(["<s>", "</s>", "<image>"])
    found.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    found.save(str(folder / "tokenizer.json"))
    # No token ends an answer: all have the same length.
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 59}))
    return folder


class Scenes:
    """What was written, and where."""

    def __init__(self, root: pathlib.Path, rng: np.random.Generator):
        """Write everything but betas, which `plant` makes of a model's answers."""
        self.root, self.rng, self.folder = root, rng, root / "nsd"
        self.images: dict[str, np.ndarray] = {}
        self.region = np.arange(np.prod(SHAPE)).reshape(SHAPE) // 20  # of each voxel
        shared = np.arange(0, 10000, 10)
        table = np.zeros((10000 + 2 * NUM_OWN, 24), np.int64)
        for number, subject in enumerate(SUBJECTS):
            own = 10000 + NUM_OWN * number + np.arange(NUM_OWN)
            shown = rng.permutation(np.repeat(np.r_[shared[:NUM_SHARED], own], REPEATS))
            self.images[subject] = shown
            for image in np.unique(shown):
                table[image, 3 * number : 3 * number + 3] = 1 + np.flatnonzero(shown == image)
            self._write_subject(subject, shown)
        columns = [f"subject{i}_rep{k}" for i in range(1, 9) for k in range(3)]
        is_shared = np.isin(np.arange(len(table)), shared).tolist()
        rows = [
            [i, 100 + i, ("train2017", "val2017")[i % 2], i, is_shared[i], *cells]
            for i, cells in enumerate(table.tolist())
        ]
        header = ["", "cocoId", "cocoSplit", "nsdId", "shared1000", *columns]
        write_table(self.folder / "nsddata/experiments/nsd/nsd_stim_info_merged.csv", header, rows)
        self._write_pictures()
        for subject in SUBJECTS:
            self._write_betas(subject, np.zeros((*SHAPE, 750)))

    def _write_subject(self, subject, shown):
        trial, num = np.arange(750), int(subject[4:])
        place = [1 + trial // 750, 1 + trial // 63, 1 + trial % 63, shown + 1, 0 * trial]
        rows = np.stack([np.full(750, num), *place], axis=1)
        header = ["SUBJECT", "SESSION", "RUN", "TRIAL", "73KID", "10KID"]
        path = self.folder / f"nsddata/ppdata/{subject}/behav/responses.tsv"
        write_table(path, header, rows.tolist(), separator="\t")
        rois = self.folder / f"nsddata/ppdata/{subject}/func1pt8mm/roi"
        rois.mkdir(parents=True)
        write = lambda values, path: nib.save(nib.Nifti1Image(values, np.eye(4)), path)
        write(np.ones(SHAPE, np.int16), rois / "nsdgeneral.nii.gz")
        for i, (volume, _) in enumerate(REGIONS.values()):
            count = len(LABELS[volume])
            labels = 1 + np.arange(np.prod(SHAPE)).reshape(SHAPE) % count
            write(np.where(self.region == i, labels, 0).astype(float), rois / f"{volume}.nii.gz")
            names = self.folder / f"nsddata/freesurfer/{subject}/label/{volume}.mgz.ctab"
            names.parent.mkdir(parents=True, exist_ok=True)
            lines = ["0 Unknown", *(f"{k} {x}" for k, x in enumerate(LABELS[volume], start=1))]
            names.write_text("\n".join(lines) + "\n")
        betas = self._betas(subject)
        betas.mkdir(parents=True)
        has_signal = np.array([bool(codes) for _, codes in REGIONS.values()])
        ratio = np.where(has_signal[self.region], RATIO, 0).astype(np.float32)
        write(ratio, betas / "ncsnr.nii.gz")

    def _betas(self, subject):
        where = f"nsddata_betas/ppdata/{subject}/func1pt8mm/betas_fithrf_GLMdenoise_RR"
        return self.folder / where

    def _write_betas(self, subject, values):
        path = self._betas(subject) / "betas_session01.hdf5"
        stored = np.rint(500 * values).astype(np.int16)
        write_hdf5(path, {"betas": stored.transpose()}, chunks=(750, 1, 1, 1))

    def _write_pictures(self):
        """Write the pictures that somebody saw; nothing is stored of the others."""
        photographs = [datasets.load_sample_image(x) for x in ("china.jpg", "flower.jpg")]
        path = self.folder / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
        path.parent.mkdir(parents=True)
        with h5py.File(path, "w") as file:
            shape = (73000, SIDE, SIDE, 3)
            brick = file.create_dataset("imgBrick", shape, np.uint8, chunks=(1, *shape[1:]))
            for image in np.unique(np.concatenate(list(self.images.values()))):
                photograph = photographs[image % 2]
                step = int(self.rng.integers(1, 6))  # how far away it is seen
                size = step * SIDE
                y = int(self.rng.integers(photograph.shape[0] - size))
                x = int(self.rng.integers(photograph.shape[1] - size))
                brick[int(image)] = photograph[y : y + size : step, x : x + size : step]

    def plant(self, subject, features, ids):
        """Write betas that are made of features of answers.

        Args:
          subject: whose.
          features: of each instruction, by its code: [images, units].
          ids: stimuli of the rows.

        Returns:
          Of each voxel its signal in each image, in the order of the rows.
        """
        row = {int(name.removeprefix("nsd")): i for i, name in enumerate(ids)}
        trials = [row[i] for i in self.images[subject].tolist()]
        values, signals = np.zeros((*SHAPE, 750)), np.zeros((*SHAPE, len(ids)))
        for i, (_, codes) in enumerate(REGIONS.values()):
            inside = self.region == i
            num = int(inside.sum())
            signal = np.zeros((num, len(ids)))
            for code in codes:
                X = features[code] - features[code].mean(axis=0)
                U, S, _ = np.linalg.svd(X, full_matrices=False)
                X = U[:, S > 1e-3 * S[0]]
                part = self.rng.normal(size=(num, X.shape[1])) @ X.T
                signal += part / part.std(axis=1, keepdims=True)
            if codes:
                signal *= RATIO / signal.std(axis=1, keepdims=True)
            noise = self.rng.normal(size=(num, 750))
            values[inside], signals[inside] = signal[:, trials] + noise, signal
        if subject == SUBJECTS[0]:
            values[DEAD] = 0
        self._write_betas(subject, values / 2)
        return signals
