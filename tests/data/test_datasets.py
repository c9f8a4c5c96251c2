"""Data sets by name and by path, and the hash that stands for their files."""

import pathlib
import re

import numpy as np
import published_files as published
import pytest
import recordings
from refusals import refused

from jaxalign.data import datasets
from jaxalign.data.sets import alice, images92
from jaxalign.data.sets.nifti import Scans
from jaxalign.data.sets.nsd import Nsd
from jaxalign.data.sets.plain import Tables

# Rows that are recordings of hundreds of files, which `recordings.touch_all` writes.
LARGE = ("wehbe2014", "lebel2023", "shortclips", "denizens", "nsd")
IS_LARGE = {name: name.startswith(LARGE) for name in datasets.DATASETS}

PAGES = pathlib.Path(__file__).resolve().parents[2] / "docs/datasets"
CSV = "stimulus_id,text,passage\na,One.,p\nb,Two.,p\nc,Three.,p\n"


def write_alice(root):
    """Write the files that all data sets hash; what they hold plays no part."""
    grid = root / alice.FOLDER / alice.TEXTGRID
    grid.parent.mkdir(parents=True)
    grid.write_text("words")
    for radius in ("6mm", "10mm"):
        folder = root / alice.FOLDER / "alice_data_shared" / radius
        folder.mkdir(parents=True)
        for subject in ("s18", "s22"):
            (folder / f"{subject}-timecourses.txt").write_text(f"{subject} {radius}")
    return root


@pytest.fixture
def alice_root(tmp_path):
    return write_alice(tmp_path)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Write what every row of the table needs; tests only read it."""
    root = write_alice(tmp_path_factory.mktemp("small"))
    rng = np.random.default_rng(0)
    for write in (
        *(published.pereira, published.blank, published.fedorenko, published.tuckute),
        *(published.futrell, published.pie_man, published.language_network),
    ):
        write(root, rng)
    published.stories(root)
    (root / images92.FOLDER).mkdir()
    for file in images92.FILES:
        (root / images92.FOLDER / file).write_text(file)
    return root


def test_an_unknown_name_lists_what_there_is(tmp_path):
    with refused("dataset must be one of", "or a directory", "'narnia'"):
        datasets.find("narnia", tmp_path)
    for name in datasets.DATASETS:
        with refused("dataset must be one of", name, "'narnia'"):
            datasets.find("narnia", tmp_path)


@pytest.mark.parametrize("name", sorted(set(datasets.DATASETS) - set(datasets.EMBEDDED)))
def test_without_a_data_folder_the_remedy_is_named(name):
    with refused(f"dataset {name}", "give --data_root or set JAXALIGN_DATA"):
        datasets.find(name, None)


def test_a_data_folder_that_is_not_there_is_named(tmp_path):
    with refused("data_root must be a directory", tmp_path / "absent"):
        datasets.find("alice", tmp_path / "absent")
    (tmp_path / "file").touch()
    with refused("data_root must be a directory", tmp_path / "file"):
        datasets.find("alice", tmp_path / "file")


@pytest.mark.parametrize("name", sorted(set(datasets.DATASETS) - set(datasets.EMBEDDED)))
def test_each_row_names_what_is_missing(tmp_path, name):
    with refused(tmp_path):
        datasets.find(name, tmp_path)


def test_what_a_data_set_lacks_is_named(root):
    with refused("data set alice has no behavior: it has stimuli and responses"):
        _ = datasets.find("alice", root).behavior
    with refused("data set futrell2018 has no responses: it has stimuli and behavior"):
        _ = datasets.find("futrell2018", root).responses
    with refused("data set pieman has no stimuli: it has responses"):
        _ = datasets.find("pieman", root).stimuli


def test_groups_are_the_adapters_or_passages(root):
    stories = datasets.find("naturalstories", root)
    assert stories.groups == dict(
        zip(stories.stimuli.stimulus_id, stories.stimuli.passage, strict=True)
    )
    sentences = datasets.find("pereira2018-384", root)
    assert set(sentences.groups.values()) == {"384sentences.fruit", "384sentences.home"}
    assert len(set(sentences.stimuli.passage)) == 3


@pytest.mark.parametrize("name", [name for name, large in IS_LARGE.items() if not large])
def test_each_row_of_the_table_is_found(root, name):
    found = datasets.find(name, root)
    assert found.name == name
    assert re.fullmatch("[0-9a-f]{16}", found.hash)


@pytest.fixture(scope="module")
def large_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("large")
    recordings.touch_all(root)
    return root


@pytest.mark.parametrize("name", [name for name, large in IS_LARGE.items() if large])
def test_each_row_of_large_recordings_is_found(large_root, name):
    found = datasets.find(name, large_root)
    assert found.name == name
    assert re.fullmatch("[0-9a-f]{16}", found.hash)


@pytest.mark.parametrize("name", datasets.DATASETS)
def test_each_row_of_the_table_has_a_page(name):
    """Rows that differ in the subject share one, which names the first of them."""
    first = re.sub(r"0\d$", "01", name)
    (line,) = (x for x in (PAGES / "README.md").read_text().splitlines() if f"`{first}`" in x)
    (page,) = re.findall(r"\]\((\S+\.md)\)", line)
    text = (PAGES / page).read_text()
    assert f"`{first}`" in text
    for heading in ("source", "licence", "how to obtain", "known defects", "example"):
        assert heading in text.lower(), heading


def test_the_hash_tells_options_apart(large_root):
    """One subject's files are the same, however they are read."""
    hashes = [
        datasets.Dataset(Nsd(root=large_root, subjects=("subj01",), **more)).hash
        for more in ({}, {"images": "shared"}, {})
    ]
    assert hashes[0] == hashes[2] != hashes[1]


def test_a_path_names_a_directory_of_ones_own(make_folder, tmp_path, monkeypatch):
    folder = make_folder(CSV)
    monkeypatch.chdir(tmp_path)
    by_path, by_name = datasets.find(str(folder), None), datasets.find("./mine/", None)
    assert by_path.name == by_name.name == "mine"
    assert by_path.hash == by_name.hash
    assert by_path.stimuli.text == ["One.", "Two.", "Three."]


def test_a_name_of_the_table_comes_before_a_directory(alice_root, make_folder, monkeypatch):
    make_folder(CSV).rename(alice_root / "alice")
    monkeypatch.chdir(alice_root)
    assert isinstance(datasets.find("alice", alice_root).adapter, alice.Alice)
    assert isinstance(datasets.find("./alice", alice_root).adapter, Tables)


def test_a_directory_of_scans_is_told_by_its_table(make_folder):
    folder = make_folder(CSV)
    assert isinstance(datasets.find(str(folder), None).adapter, Tables)
    (folder / "images.csv").touch()
    assert isinstance(datasets.find(str(folder), None).adapter, Scans)


def test_the_hash_changes_when_any_file_changes(alice_root):
    files = [x for x in sorted(alice_root.rglob("*")) if x.is_file() and "6mm" not in x.parts]
    hashes = [datasets.find("alice", alice_root).hash]
    for path in files:
        path.write_text(path.read_text() + " ")
        hashes.append(datasets.find("alice", alice_root).hash)
    assert len(files) == 3
    assert len(set(hashes)) == 4


def test_the_hash_changes_when_a_file_comes_goes_or_is_renamed(alice_root):
    folder = alice_root / alice.FOLDER / "alice_data_shared/10mm"
    hashes = [datasets.find("alice", alice_root).hash]
    (folder / "s30-timecourses.txt").write_text("s30 10mm")
    hashes.append(datasets.find("alice", alice_root).hash)
    (folder / "s30-timecourses.txt").rename(folder / "s31-timecourses.txt")
    hashes.append(datasets.find("alice", alice_root).hash)
    (folder / "s22-timecourses.txt").unlink()
    hashes.append(datasets.find("alice", alice_root).hash)
    assert len(set(hashes)) == 4


def test_the_hash_does_not_change_with_files_of_others(alice_root):
    before = datasets.find("alice", alice_root).hash
    folder = alice_root / alice.FOLDER / "alice_data_shared"
    (folder / "6mm/s18-timecourses.txt").write_text("other")
    (folder / "10mm/README.txt").write_text("other")
    assert datasets.find("alice", alice_root).hash == before
    assert datasets.find("alice-6mm", alice_root).hash != before


@pytest.mark.parametrize("name", ["stimuli.csv", "responses.npz"])
def test_the_hash_of_ones_own_data_changes_with_either_file(make_folder, name):
    folder = make_folder(CSV)
    before = datasets.find(str(folder), None).hash
    (folder / name).write_bytes((folder / name).read_bytes() + b"\n")
    assert datasets.find(str(folder), None).hash != before
