"""Each page of docs/datasets names commands that work for its data set."""

import ast
import pathlib
import re
import runpy
import shlex
import shutil
import textwrap

import numpy as np
import pytest
import recordings
import tiny
from own_scans import Folder
from recordings import SPOKEN, text_grid, write_table

from jaxalign import config, runner
from jaxalign.data import datasets
from jaxalign.data.sets import nsd
from jaxalign.data.synthetic import planted_bids

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
PAGES = sorted((REPOSITORY / "docs/datasets").glob("[a-z]*.md"))


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def commands(page):
    """Return the flags of each command of a page that starts a run."""
    lines = [line for block in blocks(page, "sh") for line in block.replace("\\\n", "").split("\n")]
    given = [shlex.split(line) for line in lines if line.strip()]
    return [words[3:] for words in given if words[1:3] == ["-m", "jaxalign.main"]]


COMMANDS = [(page.stem, flags) for page in PAGES for flags in commands(page)]
NAMES = [f"{page} {flags[0].rpartition('/')[2]}" for page, flags in COMMANDS]


def resolve(flags, replaced):
    """Return the configuration that a command asks for, with other models and directories."""
    values = dict(flag.removeprefix("--").partition("=")[::2] for flag in flags)
    values.pop("data_root", None), values.pop("download", None)
    path, colon, argument = values.pop("config").partition(":")
    for name, other in replaced.items():
        argument = re.sub(rf"(^|,){re.escape(name)}(?=,|$)", rf"\g<1>{other}", argument)
    found = runpy.run_path(str(REPOSITORY / path))["get_config"](*([argument] if colon else []))
    changes = {}
    for name, value in values.items():
        if name.startswith("config."):
            value = replaced.get(value, value)
            is_tuple = value.startswith("(")
            changes[name.removeprefix("config.")] = ast.literal_eval(value) if is_tuple else value
    known = config.flatten(found)
    changes = {k: type(known[k])(v) for k, v in changes.items()}
    return config.override(found, changes)


def write_own(root, rng):
    tiny.write_sentences(root / "own", rng)
    ids = datasets.find(str(root / "own"), None).stimuli.stimulus_id
    np.savez(root / "network.npz", stimulus_id=ids, layer_1=rng.normal(size=(len(ids), 3)))
    names = ["stimulus_id", "participant", "reading_time_ms", "word_in_sentence"]
    times = [[x, reader, 200 + i, 1 + i % 5] for reader in "ab" for i, x in enumerate(ids)]
    times = [[*row[:2], row[2] + (row[1] == "b") * rng.random(), row[3]] for row in times]
    write_table(root / "own/behavior.csv", names, times)
    return root / "own"


def write_items(root, rng):
    (root / "own").mkdir()
    (root / "own/sentences.txt").write_text("the dog sat\na bird flew\n")
    (root / "own/nonwords.txt").write_text("vek zup mib\nkaf nop tuz\n")
    return root / "own"


def write_scans(root, rng):
    (root / "own").mkdir()
    folder = Folder(root / "own")
    words = [[f"{run}.{i}", f"{run}{i}", run, run, i, i + 0.5] for run in "ab" for i in range(60)]
    header = ["stimulus_id", "text", "passage", "run", "onset_s", "offset_s"]
    write_table(folder.root / "stimuli.csv", header, words)
    folder.volume("mask.nii", np.ones(8, np.int16))
    for run in "ab":
        folder.volume(f"{run}.nii", rng.normal(size=(60, 8)).astype(np.float32))
        folder.add(f"{run}.nii", "mask.nii", run=run)
    folder.responses()
    return folder.root


def write_words(path, i):
    """Write a TextGrid whose last word is another one for each i."""
    words = [*SPOKEN, (2.0, 50.0, f"we{i}")]
    path.parent.mkdir(exist_ok=True)
    path.write_text(text_grid({"phone": [(0.0, 50.0, "S")], "word": words}))


def write_denizens(root, rng):
    folder = recordings.denizens(root, rng, subjects=("01",))
    for part, stories in (("trn", ("story_01", "story_02")), ("val", ("story_11",))):
        path = folder / f"responses/subject01_listening_fmri_data_{part}.hdf"
        shape = (90, 3) if part == "trn" else (2, 90, 3)
        recordings.rewrite_hdf5(path, **{story: rng.normal(size=shape) for story in stories})
    for i, story in enumerate(("story_01", "story_02", "story_11")):
        write_words(folder / f"stimuli/{story}.TextGrid", i)


def write_huth(root, rng):
    # The protocol holds out 5,000 samples of the training stories.
    stories = {"life": 3020, "souls": 3020, "wheretheressmoke": 100}
    folder = recordings.huth_stories(root, rng, {"UTS03": stories})
    for i, story in enumerate(stories):
        write_words(folder / f"TextGrids/{story}.TextGrid", i)


def write_bids(root, rng):
    planted_bids.write(root / "own")
    shutil.copy(root / "own/network.npz", root / "network.npz")
    return root / "own"


def write_images(root, rng):
    recordings.nsd(root, rng, num_sessions=2)
    images = datasets.find("nsd-subj01", root).stimuli.stimulus_id
    rows = [[int(name.removeprefix("nsd")), f"A dog, {name}."] for name in images]
    write_table(root / "nsd/captions.csv", ["nsdId", "caption"], rows)
    np.savez(root / "network.npz", stimulus_id=images, layer_1=rng.normal(size=(len(images), 3)))


# Pages whose files can be written small, and are planned; of the others the published counts are
# verified, so that their commands are resolved alone.
WRITTEN = {
    "demo": lambda root, rng: None,
    "localizer": write_items,
    "own": write_own,
    "images": write_scans,
    "bids": write_bids,
    "denizens": write_denizens,
    "lebel2023": write_huth,
    "nsd": write_images,
    "wehbe2014": lambda root, rng: recordings.harry_potter(root, rng, subjects="FHIJKLMN"),
}


@pytest.mark.parametrize("page", [x.stem for x in PAGES if not blocks(x, "python")])
def test_each_page_has_a_command(page):
    assert page in {name for name, _ in COMMANDS}


@pytest.mark.slow
@pytest.mark.parametrize("page,flags", COMMANDS, ids=NAMES)
def test_commands_are_understood_and_planned(tmp_path, rng, monkeypatch, page, flags):
    monkeypatch.setitem(nsd.NUM_SESSIONS, "subj01", 2)
    own = WRITTEN[page](tmp_path, rng) if page in WRITTEN else None
    replaced = {
        "gpt2": str(tiny.GOLDEN / "llama"),
        "path/to/network.npz": str(tmp_path / "network.npz"),
        "path/to/directory": str(own),
        "path/to/data": str(own),
    }
    settings = resolve(flags, replaced)
    if page in WRITTEN:
        plan = runner.plan(settings, workdir=tmp_path / "work", data_root=tmp_path)
        assert plan.steps
        data = plan.job.dataset
        if data is not None and data.adapter.has("responses"):
            is_timed = datasets.is_timed(settings.dataset)
            assert data.responses.is_timed == data.stimuli.is_timed == is_timed
    else:
        config.unpack(settings)


@pytest.mark.slow
@pytest.mark.parametrize("page", ["pieman", "shortclips"])
def test_python_examples_run(request, tmp_path, rng, page):
    """Without words there is no command: what can be done is said in Python."""
    if page == "pieman":
        root = request.getfixturevalue("data_root")
    else:
        root = recordings.shortclips(tmp_path, rng, subjects=("S01",), runs=(30, 30)).parent
    (code,) = blocks(REPOSITORY / f"docs/datasets/{page}.md", "python")
    exec(textwrap.dedent(code).replace("path/to/data", str(root)), {})
