"""Places: a folder and a bucket behave alike, and what a bucket refuses is said in one line."""

import dataclasses
import json
import logging
import os
import pathlib
import pickle
import re
import time
from typing import NamedTuple

import buckets
import numpy as np
import pandas as pd
import pytest
from refusals import refused

from jaxalign.errors import PlaceError
from jaxalign.io import arrays, claims, place, rows, run_dir, store

REMOTE = place.at("s3://some-bucket/runs/demo")
FREE_PORT = "http://127.0.0.1:9"  # where nobody listens


class Pair(NamedTuple):
    a: np.ndarray
    b: np.ndarray


def make(workdir, **changes):
    plain = {"workdir": workdir, "stage": "encode", "name": "tiny", "settings": {"seed": 0}}
    return run_dir.Artefact(**plain | changes)


def finished(workdir, **changes):
    """Make an artefact of three files."""
    artefact = make(workdir, **changes)
    artefact.start()
    if isinstance(workdir, pathlib.Path):
        (artefact.path / "part").mkdir()
    for name in ("a.json", "part/b.bin", "ü e%+.txt"):
        run_dir.write_atomic(artefact.path / name, name.encode() * 3)
    artefact.finish(num=3)
    return artefact


def test_text_becomes_a_place(tmp_path):
    assert place.at(tmp_path) == tmp_path and place.at(str(tmp_path)) == tmp_path
    assert place.at("runs/demo") == pathlib.Path("runs/demo")
    assert place.at(REMOTE) is REMOTE and str(REMOTE) == "s3://some-bucket/runs/demo"
    assert (
        str(place.at("gs://some-bucket"))
        == str(place.at("gs://some-bucket/"))
        == ("gs://some-bucket")
    )
    assert place.at("s3://some-bucket//runs/demo/") == REMOTE
    assert pickle.loads(pickle.dumps(REMOTE)) == REMOTE


@pytest.mark.parametrize("text", ["az://container/runs", "https://host/runs", "file:///runs"])
def test_other_schemes_are_refused(text):
    with refused("must be a folder, s3://BUCKET/PATH or gs://BUCKET/PATH", text):
        place.at(text)


@pytest.mark.parametrize("text", ["s3://", "gs:///runs", "s3://Some_Bucket!/runs"])
def test_a_url_must_name_a_bucket(text):
    with refused(text, "must name a bucket"):
        place.at(text)


def test_names_are_those_of_a_path():
    path = pathlib.PurePosixPath("/runs/demo")
    for way in ("a", "a/b.csv", "../x", "/etc/x"):
        assert (REMOTE / way).inside == path / way
    shard = REMOTE / "a/b.csv"
    assert (shard.name, shard.parent, shard.with_name("c")) == (
        "b.csv",
        REMOTE / "a",
        REMOTE / "a/c",
    )
    assert shard.relative_to(REMOTE) == pathlib.PurePosixPath("a/b.csv")
    assert REMOTE in (REMOTE / "a/../b").resolve().parents
    assert REMOTE not in (REMOTE / "../b").resolve().parents
    assert REMOTE not in (REMOTE / "/etc/b").resolve().parents
    with pytest.raises(ValueError, match="must lie in"):
        shard.relative_to(place.at("gs://some-bucket/runs/demo"))


def test_a_remote_place_is_no_path_of_this_machine():
    """Otherwise `open` would write to a folder called "s3:"."""
    with pytest.raises(TypeError):
        open(REMOTE / "a.json", "rb")  # pyright: ignore
    with pytest.raises(ValueError, match="must be opened as 'rb'"):
        REMOTE.open("wb")


def test_files_come_back(anywhere):
    path = anywhere / "a.json"
    assert not path.is_file() and not path.exists()
    with pytest.raises(FileNotFoundError):
        path.read_bytes()
    run_dir.write_atomic(path, b"old and long")
    run_dir.write_json(path, {"b": [1, "ü"]})
    assert path.is_file() and path.exists() and not path.is_dir() and anywhere.is_dir()
    assert json.loads(path.read_text(encoding="utf-8")) == {"b": [1, "ü"]}
    with path.open("rb") as file:
        assert file.read() == path.read_bytes()
    path.unlink()
    path.unlink(missing_ok=True)
    assert not path.exists()


def test_names_are_found_by_pattern(anywhere):
    artefacts = [finished(anywhere, settings={"seed": i}) for i in range(2)]
    fingerprints = sorted(x.fingerprint for x in artefacts)
    found = lambda pattern: sorted(
        x.relative_to(anywhere).as_posix() for x in anywhere.glob(pattern)
    )
    assert found("encode/*") == [f"encode/{x}" for x in fingerprints]
    assert found("encode/*/a.json") == [f"encode/{x}/a.json" for x in fingerprints]
    assert found("*/*/[!.]*.json") == sorted(
        f"encode/{x}/{name}.json" for x in fingerprints for name in ("a", "done", "settings")
    )
    assert found("encode") == ["encode"] and found("extract/*") == []
    assert [x.name for x in anywhere.iterdir()] == ["encode"]
    assert sorted(x.name for x in (anywhere / "encode").iterdir()) == fingerprints


def test_an_artefact_is_finished_and_damage_is_named(anywhere):
    artefact = finished(anywhere)
    assert artefact.is_done and artefact.facts()["num"] == 3
    assert make(anywhere, settings={"seed": 1}).facts() == {}
    run_dir.write_atomic(artefact.path / "part/b.bin", b"damaged")
    (artefact.path / "a.json").unlink()
    assert not artefact.is_done and artefact.is_marked
    assert run_dir.changed(artefact.path) == ["a.json", "part/b.bin"]
    with refused(artefact.path / "a.json", "is not what its run wrote"):
        run_dir.check_whole(artefact.path / "a.json")
    run_dir.check_whole(artefact.path / "ü e%+.txt")
    artefact.start()
    assert not (artefact.path / "part/b.bin").is_file() and not artefact.is_done
    assert (artefact.path / "ü e%+.txt").is_file()


def test_a_page_replaces_the_last_one(anywhere):
    old = finished(anywhere, stage="report", latest_only=True)
    run_dir.write_atomic(old.path / "mine.txt", b"of the user")
    new = make(anywhere, stage="report", latest_only=True, settings={"seed": 1})
    new.start()
    assert (new.path / "a.json").is_file() and not old.is_marked
    new.finish(files=())
    assert new.is_done
    left = sorted(x.name for x in new.path.glob("*") if x.is_file())
    assert left == ["done.json", "mine.txt", "settings.json"]


def test_a_marker_removes_nothing_outside_its_folder(anywhere):
    artefact = finished(anywhere)
    run_dir.write_atomic(anywhere / "mine.csv", b"of the user")
    stamps = artefact.facts()["files"]
    absolute = anywhere if isinstance(anywhere, pathlib.Path) else anywhere.inside
    names = ("../../mine.csv", str(absolute / "mine.csv"))
    outside = {name: stamps["a.json"] for name in names}
    run_dir.write_json(artefact.path / run_dir.DONE, artefact.facts() | {"files": stamps | outside})
    assert run_dir.changed(artefact.path) == []
    run_dir.write_atomic(artefact.path / "a.json", b"damaged")
    artefact.start()
    assert (anywhere / "mine.csv").read_bytes() == b"of the user"


@pytest.mark.parametrize("kind", ["s3", "gs"])
def test_what_was_copied_is_known_by_its_hash(kind, request, tmp_path):
    """From a folder to a bucket, and back to another folder, as `aws s3 sync` does."""
    first = finished(tmp_path / "first")
    there = place.at(f"{request.getfixturevalue(kind)}/copy")
    for path in (x for x in first.path.rglob("*") if x.is_file()):
        run_dir.write_atomic(there / path.relative_to(first.workdir), path.read_bytes())
    copied = dataclasses.replace(first, workdir=there)
    assert copied.is_done
    run_dir.renew(there / "none")
    run_dir.renew(copied.path)
    stamps = copied.facts()["files"]
    assert copied.is_done and all(x["generation"] for x in stamps.values())
    remote = finished(there, settings={"seed": 1})
    back = dataclasses.replace(remote, workdir=tmp_path / "back")
    with place.copied(remote.path) as folder:
        back.path.parent.mkdir(parents=True)
        folder.replace(back.path)
        folder.mkdir()
    assert back.is_done
    run_dir.write_atomic(copied.path / "a.json", b"damaged")
    (back.path / "a.json").write_bytes(b"a.jsona.jsona.jsoX")
    assert run_dir.changed(copied.path) == run_dir.changed(back.path) == ["a.json"]


def test_objects_that_are_as_they_were_are_not_read(s3, monkeypatch, caplog):
    """A check asks for generations; the content stays where it is."""
    artefact = finished(place.at(f"{s3}/runs"))
    monkeypatch.setattr(run_dir, "_objects", {})  # as in another process
    with caplog.at_level(logging.INFO, "werkzeug"):
        assert artefact.is_done
    asked = [re.search(r'"([A-Z]+) \S*/([^/ ]+) HTTP', x.getMessage()) for x in caplog.records]
    assert {x[2] for x in asked if x and x[1] == "HEAD"} >= {"a.json", "b.bin", "settings.json"}
    assert {x[2] for x in asked if x and x[1] == "GET"} == {run_dir.DONE}


def test_arrays_rows_and_tables_come_back(anywhere):
    pair = Pair(np.arange(3.0), np.array(["x", "ü"]))
    arrays.write(anywhere / "pair.npz", pair)
    found = arrays.read(anywhere / "pair.npz", Pair)
    assert found is not None and all(map(np.array_equal, found, pair))
    assert arrays.read(anywhere / "none.npz", Pair) is None
    table = pd.DataFrame({"roi": ["NA", "ü"], "value": [0.1, np.nan]})
    assert not rows.has_table(anywhere / "table")
    rows.write_table(anywhere / "table", table)
    assert rows.has_table(anywhere / "table")
    pd.testing.assert_frame_equal(rows.read_table(anywhere / "table"), table)
    assert (anywhere / "table.csv").read_text() == "roi,value\nNA,0.1\nü,nan\n"
    with refused(anywhere / "other.parquet", "must be a Parquet file"):
        rows.read_table(anywhere / "other")


ATTRIBUTES = store.Attributes(
    fingerprint="0123456789abcdef",
    dataset="toy",
    stimuli_hash="5711",
    model="tiny",
    model_hash="ab12",
    tokenizer_hash="cd34",
    untrained_seed=-1,
    reading={"context": "window:3"},
    layer_names=[],
    final_norm_applied=True,
    versions={"numpy": "2.0"},
)


def test_a_store_is_resumed_by_shards_and_damage_is_found(anywhere, rng):
    path = anywhere / store.ARRAY
    open_again = lambda: store.create(
        path, shape=(2, 5, 3), dtype="float32", shard_stimuli=2, attributes=ATTRIBUTES
    )
    values = rng.standard_normal((2, 5, 3), np.float32)
    opened = open_again()
    for i in (0, 2):
        own = opened.shards[i]
        opened.write_shard(i, values[:, own.start : own.stop]).result()
    with refused(path, "layer 1 must be finite"):
        opened.read_layer(1)
    again = open_again()
    assert [again.has_whole_shard(i) for i in range(3)] == [True, False, True]
    again.write_shard(1, values[:, 2:4]).result()
    assert np.array_equal(store.open_store(path).read_layer(1), values[1])
    vector = store.open_vector(anywhere / store.SURPRISAL, again, create=True)
    vector[:2].write(np.float32([1, 2])).result()
    assert vector.read().result()[:3].tolist()[:2] == [1, 2]
    shard = path / "c/0/1/0"
    content = bytearray(shard.read_bytes())
    content[3] ^= 1
    run_dir.write_atomic(shard, bytes(content))
    assert not open_again().has_whole_shard(1)
    with refused(path, "cannot be read"):
        store.open_store(path).read_layer(0)


def test_what_needs_a_file_of_this_machine_has_one(anywhere):
    artefact = finished(anywhere)
    with place.scratch(artefact.path, "inputs.") as folder:
        is_here = isinstance(anywhere, pathlib.Path)
        assert folder.is_dir() and (artefact.path in folder.parents) == is_here
    assert not folder.exists()
    with place.copied(artefact.path) as folder:
        assert (folder / "part/b.bin").read_bytes() == b"part/b.bin" * 3


@pytest.mark.parametrize("value", ["s3://bucket/data", "mine=gs://bucket/model", "run:s3://b/x"])
def test_what_must_be_here_is_not_looked_for_in_a_bucket(value):
    with refused("extract.models must be on this machine", value, "only a work directory"):
        place.refuse_urls("extract.models", ("gpt2", value))
    place.refuse_urls("extract.prompt", "Read http://x.org, or s3 :// y")
    place.refuse_urls("seed", 3)


def test_a_bucket_that_is_not_there_is_named(s3, s3_server):
    with refused("s3://no-such-bucket/x cannot be listed: there is no bucket", s3_server):
        place.check_readable(place.at("s3://no-such-bucket/x"))
    with refused("s3://no-such-bucket/x cannot be written: there is no bucket"):
        place.check_writable(place.at("s3://no-such-bucket/x"))
    place.check_readable(place.at(s3))
    place.check_writable(place.at(s3))
    assert buckets.names(s3_server, s3.removeprefix("s3://")) == []


def test_permissions_that_lack_are_named(s3, s3_server):
    workdir = place.at(f"{s3}/runs")
    artefact = finished(workdir)
    buckets.forbid(s3_server, workdir.bucket, "s3:PutObject", "s3:DeleteObject")
    with refused(workdir, "cannot be written: permission was denied", "s3:PutObject"):
        run_dir.check_writable(workdir)
    with pytest.raises(PlaceError, match="permission was denied") as info:
        make(workdir, settings={"seed": 1}).start()
    assert not info.value.is_lost and artefact.is_done
    buckets.forbid(s3_server, workdir.bucket, "s3:GetObject")
    # Neither unfinished nor damaged, which would be made again.
    for ask in (artefact.facts, lambda: artefact.is_done, lambda: store.open_store(workdir / "x")):
        with pytest.raises(PlaceError, match="permission was denied"):
            ask()


def test_credentials_that_lack_are_named(s3, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with refused(s3, "there are no credentials", "set AWS_ACCESS_KEY_ID"):
        run_dir.check_writable(place.at(s3))


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_lost(monkeypatch):
    buckets.environment(monkeypatch, buckets.s3_environment(FREE_PORT))
    with pytest.raises(PlaceError, match=rf"(?s)cannot be listed: .*at {FREE_PORT}") as info:
        place.check_readable(REMOTE)
    assert info.value.is_lost and "\n" not in str(info.value)


@pytest.mark.slow
def test_a_claim_in_a_bucket_counts_while_its_holder_lives(s3, s3_server, monkeypatch):
    monkeypatch.setattr(claims, "BEAT_S", 0.05)
    monkeypatch.setattr(claims, "DEAD_S", 1.0)
    workdir = place.at(f"{s3}/runs")
    path = workdir / claims.FOLDER / "encode-1"
    assert claims.holder(workdir, "encode-1") is None
    with claims.hold(workdir, "encode-1") as is_mine:
        assert is_mine and claims.holder(workdir, "encode-1").pid == os.getpid()
        with claims.hold(workdir, "encode-1") as is_mine_too:
            assert not is_mine_too
        time.sleep(1.5)  # with signs of life
        assert claims.holder(workdir, "encode-1") is not None
    assert buckets.names(s3_server, workdir.bucket) == []
    gone = {"host": "far", "pid": 7, "job": "", "machine": "another", "token": "its"}
    run_dir.write_json(path, gone)
    assert str(claims.holder(workdir, "encode-1")) == "process 7 on far"
    with claims.hold(workdir, "encode-1") as is_mine:
        assert not is_mine
    time.sleep(1.2)  # without
    with claims.hold(workdir, "encode-1") as is_mine:
        assert is_mine
    assert not path.exists()


def test_an_object_is_swapped_only_if_it_is_what_it_was(s3):
    path = place.at(f"{s3}/runs/claim")
    assert path.look() is None and path.swap(b"1", "")
    assert not path.swap(b"2", "")
    content, generation = path.look()
    assert content == b"1" and path.swap(b"3", generation) and not path.swap(b"4", generation)
    assert path.read_bytes() == b"3"


def test_where_claims_cannot_be_written_work_goes_on(s3, s3_server):
    workdir = place.at(f"{s3}/runs")
    buckets.forbid(s3_server, workdir.bucket, "s3:PutObject")
    with claims.hold(workdir, "encode-1") as is_mine:
        assert is_mine
