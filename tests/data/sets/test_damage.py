"""Whatever a file of any data set holds, it is read, or refused in one line that names it."""

import pathlib
import shutil
from collections.abc import Callable
from typing import NamedTuple

import alice_copy
import nibabel as nib
import numpy as np
import published_files as published
import pytest
import recordings
from own_scans import ATLAS, HEADER, Folder

from jaxalign.data import localizer
from jaxalign.data.localizer import Localizer
from jaxalign.data.schema import Responses
from jaxalign.data.sets import natural_stories
from jaxalign.data.sets.alice import Alice
from jaxalign.data.sets.brainscore import BrainScore
from jaxalign.data.sets.brainscore_behavior import Futrell2018
from jaxalign.data.sets.denizens import Denizens
from jaxalign.data.sets.gallant import ShortClips
from jaxalign.data.sets.lebel2023 import Lebel2023
from jaxalign.data.sets.natural_stories import NaturalStories
from jaxalign.data.sets.nifti import Scans
from jaxalign.data.sets.nsd import Nsd
from jaxalign.data.sets.pereira_mean import PereiraMean
from jaxalign.data.sets.pieman import PieMan
from jaxalign.data.sets.plain import Tables
from jaxalign.data.sets.wehbe2014 import Wehbe2014
from jaxalign.errors import InputError

NUM_SPOILED = 4  # copies of each file with a few bytes changed


class Case(NamedTuple):
    """How a data set is written, and all the ways in which it is read."""

    write: Callable[[pathlib.Path, np.random.Generator], object]
    reads: list[Callable[[pathlib.Path], object]]


def each(adapter, *kinds, **options):
    """Return readers of some kinds; a kind may have an argument, as in ("repeats", "01")."""
    split = [(kind, ()) if isinstance(kind, str) else (kind[0], kind[1:]) for kind in kinds]
    return [
        lambda root, kind=kind, given=given: getattr(adapter(root=root, **options), kind)(*given)
        for kind, given in split
    ]


def assembly(name, write):
    return Case(write, each(BrainScore, "stimuli", "responses", assembly=name, verify=False))


def write_denizens(root, rng):
    folder = recordings.denizens(root, rng, subjects=("01",))
    (folder / "stimuli").mkdir()
    words = [*recordings.SPOKEN, (2.0, 50.0, "we")]
    for story in ("story_01", "story_02", "story_11"):
        grid = recordings.text_grid({"phone": [(0.0, 50.0, "S")], "word": words})
        (folder / f"stimuli/{story}.TextGrid").write_text(grid)


def write_scans(root, rng, kind):
    folder = Folder(root)
    values = rng.normal(size=(40, 8)).astype(np.float32)
    if kind == "NIfTI":
        folder.volume("bold.nii.gz", values)
        folder.volume("atlas.nii", ATLAS.astype(np.int16))
        folder.add("bold.nii.gz", "atlas.nii", labels="labels.csv")
    elif kind == "GIFTI":
        names = [(i, f"A{i}") for i in range(6)]
        folder.surface("left.func.gii", values, step="1.5")
        folder.surface(
            "left.label.gii", ATLAS.astype(np.int32), names=names, intent="NIFTI_INTENT_LABEL"
        )
        folder.add("left.func.gii", "left.label.gii", hemisphere="L")
    else:
        models = nib.cifti2.BrainModelAxis.from_mask(np.ones(8, bool), "CortexLeft")
        time = nib.cifti2.SeriesAxis(0, 1.5, 40)
        names = nib.cifti2.LabelAxis(["map"], [{i: (f"A{i}", (0, 0, 0, 1)) for i in range(6)}])
        nib.save(nib.Cifti2Image(values, (time, models)), root / "bold.dtseries.nii")
        labels = nib.Cifti2Image(ATLAS[np.newaxis].astype(np.float32), (names, models))
        nib.save(labels, root / "atlas.dlabel.nii")
        folder.add("bold.dtseries.nii", "atlas.dlabel.nii")
    recordings.write_table(root / "images.csv", HEADER, folder.rows)
    if kind != "NIfTI":  # the others carry the names of their labels
        (root / "labels.csv").unlink()


def write_own(root, rng):
    header = ["stimulus_id", "text", "passage"]
    recordings.write_table(root / "stimuli.csv", header, [[x, f"Word {x}.", "p"] for x in "abc"])
    responses = Responses(
        values=rng.normal(size=(3, 2)),
        run=["r"] * 3,
        subject=["s1", "s2"],
        roi=["LATL"] * 2,
        target=["mean"] * 2,
        units="z",
        stimulus_id=list("abc"),
    )
    (root / "responses.npz").write_bytes(responses.to_bytes())
    header = ["stimulus_id", "participant", "reading_time_ms", "word_in_sentence"]
    recordings.write_table(
        root / "behavior.csv", header, [["a", "p1", 300, 1], ["b", "p1", 310, 2]]
    )


def write_items(root, rng):
    for name, item in zip(localizer.FILES.values(), ("a dog ran", "o fep lig"), strict=True):
        (root / name).write_text(f"{item}\n{item[::-1]}\n")


NSD = {"subjects": ("subj01",), "num_sessions": 1, "atlas": "prf-visualrois"}
BY_NAME = {"subjects": ("subj01",), "num_sessions": 1, "rois": ("FFA", "early")}
HEARD = {"subjects": ("01",), "modality": "listening"}
CASES = {
    "alice": Case(alice_copy.Copy, each(Alice, "stimuli", "responses", radius_mm=10)),
    "Pereira2018": assembly("Pereira2018.243sentences", published.pereira),
    "Blank2014": assembly("Blank2014", published.blank),
    "Fedorenko2016": assembly("Fedorenko2016", published.fedorenko),
    "Tuckute2024": assembly("Tuckute2024", published.tuckute),
    "Futrell2018": Case(published.futrell, each(Futrell2018, "behavior", verify=False)),
    "wehbe2014": Case(
        recordings.harry_potter,
        each(Wehbe2014, "stimuli", "responses", subjects=("F", "H")),
    ),
    "lebel2023": Case(
        lambda root, rng: recordings.huth_stories(root, rng, {"UTS01": {"wheretheressmoke": 35}}),
        each(Lebel2023, "stimuli", "responses", ("repeats", "UTS01"), subjects=("UTS01",)),
    ),
    "denizens": Case(write_denizens, each(Denizens, "stimuli", "responses", **HEARD)),
    "shortclips": Case(
        lambda root, rng: recordings.shortclips(root, rng, subjects=("S01",)),
        each(
            ShortClips,
            *("responses", ("features", "wordnet"), ("features", "motion_energy")),
            subjects=("S01",),
        ),
    ),
    **{
        f"nsd {kind}": Case(
            lambda root, rng, kind=kind: recordings.nsd(
                root, rng, num_sessions=1, kind=kind, shape=(3, 2, 3)
            ),
            [
                *each(Nsd, "responses", **NSD),
                *each(Nsd, "responses", **BY_NAME),
            ],
        )
        for kind in ("hdf5", "nii.gz")
    },
    "naturalstories": Case(
        lambda root, rng: published.stories(root),
        [
            *each(NaturalStories, "behavior", times="corrected", verify=False),
            *each(NaturalStories, "behavior", times="participants", verify=False),
            lambda root: natural_stories.gpt3_surprisal_bits(root, ["1.1"]),
        ],
    ),
    "pereira2018-mean": Case(
        published.language_network,
        [
            *each(PereiraMean, "stimuli", "responses", verify=False),
            lambda root: PereiraMean(root=root).activations("gpt2-layer12").read(),
        ],
    ),
    "pieman": Case(published.pie_man, each(PieMan, "responses", verify=False)),
    **{
        kind: Case(
            lambda root, rng, kind=kind: write_scans(root, rng, kind),
            each(Scans, "stimuli", "responses"),
        )
        for kind in ("NIfTI", "CIFTI", "GIFTI")
    },
    "own": Case(write_own, each(Tables, "stimuli", "responses", "behavior")),
    "localizer": Case(write_items, each(Localizer, "stimuli")),
}
# What can end anywhere and still be a text or a table, if a shorter one.
TEXTS = (".txt", ".csv", ".tsv", ".tok", ".conllx", ".TextGrid", ".json", ".ctab")


def refusals(case, root):
    """Read in every way; return what is said. Anything but an InputError is let through."""
    said = []
    for read in case.reads:
        try:
            read(root)
        except InputError as error:
            said.append(str(error))
    return said


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_file_is_read_or_refused_by_its_name(tmp_path, rng, name):
    """Each in turn missing, empty, cut off, of other bytes, and with a few bytes changed."""
    case = CASES[name]
    case.write(tmp_path, rng)
    assert refusals(case, tmp_path) == []
    for path in sorted(x for x in tmp_path.rglob("*") if x.is_file()):
        content = path.read_bytes()
        kept = path.with_name("kept aside")
        shutil.move(path, kept)
        # Of Alice, those who are there are read, and its log says how many.
        is_optional = path.name.endswith("-timecourses.txt")
        said = refusals(case, tmp_path)
        stem = path.name.partition(".")[0]  # betas may be of two kinds
        assert is_optional or any(stem in x for x in said), ("missing", path.name, said)
        shutil.move(kept, path)
        damaged = {"empty": b"", "other bytes": bytes(range(256))}
        if path.suffix not in TEXTS:
            damaged["cut off"] = content[: len(content) // 2]
        for how, other in damaged.items():
            path.write_bytes(other)
            said = refusals(case, tmp_path)
            assert any(path.name in x for x in said), (how, path.name, said)
            assert not any("\n" in x for x in said), (how, said)
        for _ in range(NUM_SPOILED):
            spoiled = bytearray(content)
            start = int(rng.integers(len(content)))
            spoiled[start : start + 4] = rng.bytes(len(spoiled[start : start + 4]))
            path.write_bytes(bytes(spoiled))
            assert not any("\n" in x for x in refusals(case, tmp_path))
        path.write_bytes(content)
