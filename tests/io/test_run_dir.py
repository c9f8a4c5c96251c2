"""Artefacts: what moves a fingerprint, what a done-marker means, and files that are whole."""

import concurrent.futures
import dataclasses
import fcntl
import hashlib
import json
import os
import re
import shutil

import pytest
from refusals import refused

from jaxalign.errors import InputError
from jaxalign.io import run_dir

SETTINGS = {"version": 1, "layers": [0, 1], "alpha": 0.1, "name": "toy", "flag": True}


def make(tmp_path, **changes):
    plain = {"workdir": tmp_path, "stage": "encode", "name": "tiny", "settings": SETTINGS}
    return run_dir.Artefact(**(plain | changes))


@pytest.fixture
def artefact(tmp_path):
    return make(tmp_path, inputs=(make(tmp_path, stage="extract"),))


# Fingerprints.


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"layers": [1, 0]},
        {"layers": [0, 1, 2]},
        {"alpha": 0.1 + 2**-55},
        {"name": "toy "},
        {"flag": False},
        {"more": None},
        {"flag": 1.5},
    ],
    ids=str,
)
def test_any_setting_changes_the_fingerprint(artefact, change):
    other = dataclasses.replace(artefact, settings=SETTINGS | change)
    assert other.fingerprint != artefact.fingerprint
    assert other.path != artefact.path


def test_dropping_a_setting_changes_the_fingerprint(artefact):
    for key in SETTINGS:
        fewer = {k: v for k, v in SETTINGS.items() if k != key}
        assert dataclasses.replace(artefact, settings=fewer).fingerprint != artefact.fingerprint, (
            key
        )


def test_stage_changes_the_fingerprint(artefact):
    assert dataclasses.replace(artefact, stage="extract").fingerprint != artefact.fingerprint


def test_kind_changes_the_fingerprint(artefact):
    assert dataclasses.replace(artefact, kind="scores").fingerprint != artefact.fingerprint


def test_inputs_change_the_fingerprint(tmp_path, artefact):
    one, two = (make(tmp_path, settings={"seed": seed}) for seed in (1, 2))
    given = ((), (one,), (two,), (one, two), (two, one))
    found = [dataclasses.replace(artefact, inputs=inputs).fingerprint for inputs in given]
    assert len(set(found)) == len(given)


def test_inputs_of_inputs_change_the_fingerprint(tmp_path):
    chain = lambda seed: make(
        tmp_path,
        inputs=(make(tmp_path, inputs=(make(tmp_path, settings={"seed": seed}),)),),
    )
    assert chain(1).fingerprint == chain(1).fingerprint != chain(2).fingerprint


def test_what_does_not_fix_the_content_does_not_change_the_fingerprint(tmp_path, artefact):
    for change in (
        {"cost": "3 hours"},
        {"name": "another"},
        {"workdir": tmp_path / "elsewhere"},
        {"settings": dict(reversed(SETTINGS.items()))},
        {"settings": SETTINGS | {"layers": (0, 1)}},
        {"inputs": (dataclasses.replace(artefact.inputs[0], name="x", cost="1 s"),)},
    ):
        other = dataclasses.replace(artefact, **change)
        assert other.fingerprint == artefact.fingerprint, change


def test_fingerprint_is_stable(tmp_path):
    """Artefacts of earlier runs must be found again: what is hashed is an interface."""
    settings = {"a": 1, "b": [0.5, "ü"]}
    text = '{"inputs": [], "kind": "scores", "settings": {"a": 1, "b": [0.5, "\\u00fc"]}, '
    text += '"stage": "encode"}'
    expected = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert make(tmp_path, kind="scores", settings=settings).fingerprint == expected


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_settings_that_equal_nothing_have_no_fingerprint(tmp_path, value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        _ = make(tmp_path, settings={"a": value}).fingerprint


def test_path_says_stage_and_fingerprint(tmp_path, artefact):
    assert artefact.path == tmp_path / "encode" / artefact.fingerprint
    assert re.fullmatch("[0-9a-f]{16}", artefact.fingerprint)


# Done-markers.


def test_artefact_is_done_only_after_finish(artefact):
    assert not artefact.is_done and not artefact.path.exists()
    artefact.start()
    assert artefact.path.is_dir() and not artefact.is_done
    (artefact.path / "scores.parquet").write_bytes(b"something")
    artefact.start()  # resumed: what is there stays
    assert (artefact.path / "scores.parquet").read_bytes() == b"something"
    assert not artefact.is_done
    artefact.finish(num_nan=2, seconds=1.5)
    assert artefact.is_done
    facts = artefact.facts()
    assert set(facts.pop("files")) == {"scores.parquet", "settings.json"}
    assert facts == {"fingerprint": artefact.fingerprint, "num_nan": 2, "seconds": 1.5}


def test_starting_again_undoes_nothing(artefact):
    """A run that planned to make it before another one had."""
    finished(artefact)
    files = {x: x.stat().st_mtime_ns for x in artefact.path.rglob("*")}
    dataclasses.replace(artefact, name="under another name").start()
    assert artefact.is_done
    assert {x: x.stat().st_mtime_ns for x in artefact.path.rglob("*")} == files


def test_done_marker_belongs_to_one_fingerprint(artefact):
    artefact.start()
    artefact.finish()
    assert dataclasses.replace(artefact, cost="none").is_done
    other = dataclasses.replace(artefact, settings=SETTINGS | {"version": 2})
    assert not other.is_done
    other.path.mkdir()
    (artefact.path / run_dir.DONE).rename(other.path / run_dir.DONE)
    assert not other.is_done and not artefact.is_done


@pytest.mark.parametrize("content", ["", "{}", '{"seconds": 1}'])
def test_marker_without_a_fingerprint_is_no_marker(artefact, content):
    artefact.start()
    (artefact.path / run_dir.DONE).write_text(content)
    assert not artefact.is_done


def finished(artefact, content=b"something"):
    artefact.start()
    (artefact.path / "sub").mkdir(exist_ok=True)
    for name in ("scores.parquet", "sub/shard"):
        (artefact.path / name).write_bytes(content)
    artefact.finish()
    assert artefact.is_done


@pytest.mark.parametrize("name", ["scores.parquet", "sub/shard", "settings.json"])
@pytest.mark.parametrize("content", [b"", b"somethinG", None])
def test_what_the_marker_does_not_vouch_for_is_made_again(artefact, name, content):
    finished(artefact)
    path = artefact.path / name
    path.unlink() if content is None else path.write_bytes(content)
    assert artefact.is_marked and not artefact.is_done
    assert run_dir.changed(artefact.path) == [name]
    artefact.start()  # what has changed is not resumed, and what has not is
    left = {"scores.parquet", "sub/shard", "settings.json"} - {name}
    left |= {"settings.json", run_dir.DONE}
    found = (x for x in artefact.path.rglob("*") if x.is_file())
    assert {x.relative_to(artefact.path).as_posix() for x in found} == left
    assert artefact.is_done == (name == "settings.json")


def test_a_copied_artefact_is_finished_and_a_large_file_is_hashed_again(
    tmp_path, artefact, monkeypatch
):
    monkeypatch.setattr(run_dir, "LARGE", 4)
    finished(artefact)
    shutil.copytree(tmp_path, tmp_path.with_name("copy"))
    copied = dataclasses.replace(artefact, workdir=tmp_path.with_name("copy"))
    assert copied.is_done
    shard = copied.path / "sub/shard"
    shard.write_bytes(b"somethinG")
    assert run_dir.changed(copied.path) == ["sub/shard"]


STAMP = {"size": 1, "mtime_ns": 0, "sha256": "0"}


@pytest.mark.parametrize("files", [None, [], "x", {"x": 1}, {"x": {"size": 1}}, {"\0": STAMP}])
def test_a_marker_that_vouches_for_nothing_is_none(artefact, files):
    finished(artefact)
    run_dir.write_json(artefact.path / run_dir.DONE, artefact.facts() | {"files": files})
    assert not artefact.is_done and run_dir.changed(artefact.path) == [run_dir.DONE]
    with refused(artefact.path / "done.json", "must have a hash of each file"):
        run_dir.check_whole(artefact.path / "scores.parquet")


def test_a_marker_removes_no_file_outside_its_directory(tmp_path):
    artefact = make(tmp_path, stage="report", latest_only=True)
    artefact.start()
    artefact.finish(files=[])
    foreign = tmp_path / "mine.csv"
    foreign.write_text("mine")
    facts = artefact.facts()
    stamp = facts["files"]["settings.json"]
    (artefact.path / "folder").mkdir()
    facts["files"] |= {"../mine.csv": stamp, str(foreign): stamp, "folder": stamp}
    run_dir.write_json(artefact.path / run_dir.DONE, facts)
    artefact.start()
    dataclasses.replace(artefact, settings=SETTINGS | {"version": 2}).start()
    assert foreign.read_text() == "mine"


def test_what_killed_writes_left_is_removed_and_what_is_under_way_is_not(artefact):
    artefact.path.mkdir(parents=True)
    dead, held, young, mine = (
        artefact.path / name
        for name in (f".a.npz.{'0' * 32}", f".b.npz.{'1' * 32}", f".c.{'2' * 32}", ".mine")
    )
    for path in (dead, held, young, mine):
        path.write_bytes(b"half")
        if path != young:
            os.utime(path, (0, 0))
    with open(held, "rb") as file:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        artefact.start()
    assert [x.exists() for x in (dead, held, young, mine)] == [False, True, True, True]


def test_latest_only_replaces_the_last_one(tmp_path):
    old, new = (make(tmp_path, stage="report", settings={"v": v}, latest_only=True) for v in (1, 2))
    assert old.path == new.path == tmp_path / "report"
    old.start()
    old.finish()
    assert old.is_done and not new.is_done
    new.start()
    assert not old.is_done and not new.is_done
    new.finish()
    assert new.is_done and not old.is_done
    assert json.loads((new.path / "settings.json").read_text())["settings"] == {"v": 2}
    assert dataclasses.replace(new, latest_only=False).fingerprint == new.fingerprint


def test_a_page_that_is_replaced_stays_for_its_readers(tmp_path):
    """Until the new one is there; then what only the old one had goes, and one killed between."""
    pages = [make(tmp_path, stage="report", settings={"v": v}, latest_only=True) for v in range(3)]
    folder = pages[0].path
    names = [("index.html", "old.csv"), ("index.html",), ("index.html", "new.csv")]
    for page, files in zip(pages, names, strict=True):
        page.start()
        assert not any(x.is_done for x in pages)
        if page is pages[1]:
            assert (folder / "old.csv").read_text() == (folder / "index.html").read_text() == "0"
        for name in files:
            (folder / name).write_text(str(page.settings["v"]))
        if page is not pages[1]:  # which is killed
            page.finish(files=files)
    found = {x.name for x in folder.iterdir()}
    assert found == {"index.html", "new.csv", "settings.json", run_dir.DONE}
    assert pages[2].is_done and (folder / "index.html").read_text() == "2"


def test_settings_are_recorded_with_those_of_all_inputs(artefact):
    artefact.start()
    recorded = json.loads((artefact.path / "settings.json").read_text())
    assert recorded == artefact.describe()
    assert recorded["fingerprint"] == artefact.fingerprint
    assert recorded["settings"] == SETTINGS
    (source,) = recorded["inputs"]
    assert (source["stage"], source["fingerprint"]) == ("extract", artefact.inputs[0].fingerprint)


# Atomic files.


def test_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "a.bin"
    run_dir.write_atomic(path, b"old and long")
    run_dir.write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["replace", "fsync"])
def test_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch, step):
    path = tmp_path / "a.bin"
    run_dir.write_atomic(path, b"old")

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="no space left"):
        run_dir.write_atomic(path, b"new")
    assert path.read_bytes() == b"old"


def test_interrupted_first_write_leaves_no_file(tmp_path, monkeypatch, artefact):
    """The done-marker above all."""
    artefact.start()

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        artefact.finish(num_nan=0)
    assert not artefact.is_done


def test_file_that_cannot_be_described_is_not_begun(tmp_path):
    with pytest.raises(TypeError):
        run_dir.write_json(tmp_path / "a.json", {"a": object()})
    assert list(tmp_path.iterdir()) == []


def test_file_has_the_permissions_that_the_umask_leaves(tmp_path):
    """Temporary files are their owner's alone; results are for the group to read."""
    old = os.umask(0o027)
    try:
        run_dir.write_atomic(tmp_path / "a.bin", b"")
        assert (tmp_path / "a.bin").stat().st_mode & 0o777 == 0o640
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(old)


def test_json_is_sorted_and_ends_in_a_newline(tmp_path):
    run_dir.write_json(tmp_path / "a.json", {"b": 1, "a": [1, "ü"]})
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == {"b": 1, "a": [1, "ü"]}
    assert text.index('"a"') < text.index('"b"') and text.endswith("}\n")


# Work directories.


def test_work_directory_is_made(tmp_path):
    workdir = tmp_path / "a" / "b"
    run_dir.check_writable(workdir)
    assert workdir.is_dir() and list(workdir.iterdir()) == []


@pytest.mark.parametrize("below", ["", "runs", "runs/today"])
def test_read_only_work_directory_is_refused(tmp_path, below):
    """For root too, who could write it."""
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o555)
    try:
        with pytest.raises(InputError, match=f"workdir must be writable: {locked}") as info:
            run_dir.check_writable(locked / below)
        assert list(locked.iterdir()) == []
    finally:
        locked.chmod(0o755)
    assert "\n" not in str(info.value) and "choose another --workdir" in str(info.value)


@pytest.mark.parametrize("below", ["", "runs"])
def test_work_directory_that_is_a_file_is_refused(tmp_path, below):
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(InputError, match=f"workdir must be writable: {file}"):
        run_dir.check_writable(file / below)
    assert file.read_text() == "mine"


# Hashes and commits.


def test_hashes_are_sha256(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    # FIPS 180-2, example B.1.
    assert run_dir.hash_file(tmp_path / "abc") == run_dir.hash_text("abc") == "ba7816bf8f01cfea"
    assert run_dir.hash_text("ü") == hashlib.sha256("ü".encode()).hexdigest()[:16]


def test_large_file_is_hashed_whole(tmp_path):
    content = bytes(3_000_000)
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "b").write_bytes(content[:-1] + b"\1")
    hashes = {run_dir.hash_file(tmp_path / name) for name in "ab"}
    assert len(hashes) == 2 and hashlib.sha256(content).hexdigest()[:16] in hashes


@pytest.fixture
def reads(monkeypatch):
    """Return the paths of files that are hashed, when this process has hashed none."""
    found, digest = [], hashlib.file_digest

    def file_digest(file, name):
        found.append(os.path.basename(file.name))
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", file_digest)
    monkeypatch.setattr(run_dir, "_hashes", {})
    return found


def test_file_is_read_once_unless_it_changes(tmp_path, reads, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"one")
    monkeypatch.setattr(run_dir, "SETTLED_S", -1.0)  # it is old enough
    first = run_dir.hash_file(path)
    assert run_dir.hash_file(path) == first and reads == ["a"]
    os.replace(path, tmp_path / "b")
    assert run_dir.hash_file(tmp_path / "b") == first  # other files may lie at a path
    path.write_bytes(b"two")  # of the same length
    assert run_dir.hash_file(path) != first
    path.write_bytes(b"three")
    assert run_dir.hash_file(path) == hashlib.sha256(b"three").hexdigest()[:16]
    os.utime(path, ns=(0, 0))
    run_dir.hash_file(path)
    assert reads == ["a", "b", "a", "a", "a"]


def test_file_that_was_just_written_is_read_again(tmp_path, reads):
    """It may be written once more within one tick of the clock that its times are read from."""
    path = tmp_path / "a"
    for content in (b"one", b"two", b"six"):
        path.write_bytes(content)
        times = path.stat()
        os.utime(path, ns=(times.st_atime_ns, 10**9 * int(times.st_mtime)))
        assert run_dir.hash_file(path) == hashlib.sha256(content).hexdigest()[:16]
    assert len(reads) == 3


def test_long_hashing_is_said(tmp_path, reads, monkeypatch, caplog):
    (tmp_path / "a").write_bytes(bytes(2_000_000))
    monkeypatch.setattr(run_dir, "_read", run_dir._Read())
    with caplog.at_level("INFO", logger="absl"):
        run_dir.hash_file(tmp_path / "a")
        assert not caplog.records
        clock = iter([0.0, 7.0])
        monkeypatch.setattr(run_dir.time, "monotonic", lambda: next(clock))
        run_dir.hash_file(tmp_path / "a")
    (record,) = caplog.records
    assert "are hashed to see what has changed: 0.0 GB in 7 s so far" in record.getMessage()


def test_files_are_whole_and_open_to_the_group_from_many_threads(tmp_path):
    """Nobody changes the process's umask meanwhile, which is one for all threads."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        paths = [tmp_path / f"{i}" for i in range(64)]
        list(pool.map(lambda path: run_dir.write_atomic(path, path.name.encode()), paths))
    mask = os.umask(0o022)
    os.umask(mask)
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o666 & ~mask}
    assert all(path.read_text() == path.name for path in paths)


def test_commit_is_a_commit_or_nothing():
    assert re.fullmatch(r"([0-9a-f]{40}(\+changes)?)?", run_dir.git_commit())
