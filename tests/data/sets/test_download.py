"""Files that are fetched, from a server on this machine."""

import functools
import gc
import hashlib
import http.server
import re
import threading

import pytest
from refusals import refused

from jaxalign.data import datasets
from jaxalign.data.sets import download
from jaxalign.data.sets.download import Source
from jaxalign.training import sources

CONTENT = b"one two three"
SHA1 = f"sha1:{hashlib.sha1(CONTENT).hexdigest()}"
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serve one file; return its address."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "file.nc").write_bytes(CONTENT)
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{found.server_port}/file.nc"
        found.shutdown()
        thread.join()


def fetch(root, *sources):
    download.fetch("here", root, sources={"here": sources})


@pytest.mark.parametrize("checksum", [SHA1, SHA256])
def test_a_missing_file_is_fetched_once(tmp_path, server, checksum):
    root = tmp_path / "data"
    fetch(root, Source("below/copy.nc", server, checksum))
    assert (root / "below/copy.nc").read_bytes() == CONTENT
    # Nothing is asked of an address that is not there.
    fetch(root, Source("below/copy.nc", "http://127.0.0.1:9/", checksum))


def test_a_file_of_another_content_is_left_alone(tmp_path, server):
    path = tmp_path / "copy.nc"
    path.write_bytes(b"mine")
    with refused(path, f"must have {SHA1} as published, found", "move it away"):
        fetch(tmp_path, Source("copy.nc", server, SHA1))
    assert path.read_bytes() == b"mine"


def test_what_arrives_with_another_checksum_is_not_kept(tmp_path, server):
    wrong = f"sha1:{'0' * 40}"
    with refused(server, "must be fetched to", wrong):
        fetch(tmp_path / "data", Source("copy.nc", server, wrong))
    assert not list((tmp_path / "data").iterdir())


# pooch does not close the answer that it refuses; the socket is let go here, and not in some test.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_an_address_without_a_file_is_named(tmp_path, server):
    with refused(f"{server}x", "must be fetched to", "404"):
        fetch(tmp_path / "data", Source("copy.nc", f"{server}x", SHA1))
    gc.collect()


def test_other_data_sets_are_refused(tmp_path):
    with refused("--download knows blank2014", "not 'alice'", "docs/datasets/"):
        download.fetch("alice", tmp_path)
    with refused("--download needs a folder", "JAXALIGN_DATA"):
        download.fetch("pieman", None)


def test_without_a_published_checksum_the_first_one_holds(tmp_path, server, caplog):
    """Of a licence that is said; a file that lay there before is left as it is."""
    source, path = Source("copy.nc", server, "", "not for sale"), tmp_path / "copy.nc"
    path.write_bytes(b"mine")
    fetch(tmp_path, source)
    assert path.read_bytes() == b"mine" and not (tmp_path / "copy.nc.sha256").exists()
    path.unlink()
    with caplog.at_level("INFO", logger="absl"):
        fetch(tmp_path, source)
    assert path.read_bytes() == CONTENT
    assert "not for sale" in caplog.text and "No checksum" in caplog.text
    digest = SHA256.removeprefix("sha256:")
    assert (tmp_path / "copy.nc.sha256").read_text() == f"{digest}  copy.nc\n"
    fetch(tmp_path, source)
    path.write_bytes(b"theirs")
    with refused(path, f"must have {SHA256} as", "copy.nc.sha256 says", "move it away"):
        fetch(tmp_path, source)
    path.unlink()
    (tmp_path / "copy.nc.sha256").write_text(f"{'0' * 64}  copy.nc\n")
    with refused(server, "must be fetched to", "0" * 64):
        fetch(tmp_path, source)


@pytest.mark.parametrize("name", sorted(download.SOURCES.keys() - sources.PUBLISHED.keys()))
def test_sources_are_the_files_of_their_data_set(tmp_path, name):
    """Once they are all there, the adapter finds all that it needs."""
    assert name in datasets.DATASETS
    for source in download.SOURCES[name]:
        assert re.fullmatch("sha1:[0-9a-f]{40}|sha256:[0-9a-f]{64}", source.checksum)
        assert source.url.startswith("https://")
        assert source.url.rpartition("/")[2] == source.path.rpartition("/")[2]
        path = tmp_path / source.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert datasets.find(name, tmp_path).name == name


@pytest.mark.parametrize("name", ["naturalstories", "pieman"])
def test_checksums_are_those_of_the_real_files(data_root, name):
    """With every file there nothing is fetched, and each is held against its checksum."""
    if not (data_root / download.SOURCES[name][0].path).is_file():
        pytest.skip(f"{name} is not there")
    download.fetch(name, data_root)
