"""Claims: they save work, count only while their holder lives, and harm nobody."""

import json
import os
import subprocess
import sys
import time

import pytest

from jaxalign.io import claims


@pytest.fixture
def path(tmp_path):
    return tmp_path / claims.FOLDER / "encode-1"


def as_another(path, **fields):
    """Let a claim be somebody else's."""
    found = json.loads(path.read_text()) | {"token": "other"} | fields
    path.write_text(json.dumps(found))


def test_one_holds_and_others_see_who(tmp_path, path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    assert claims.holder(tmp_path, "encode-1") is None
    with claims.hold(tmp_path, "encode-1") as is_mine:
        assert is_mine
        with claims.hold(tmp_path, "encode-1") as is_mine_too:
            assert not is_mine_too
        found = claims.holder(tmp_path, "encode-1")
        assert found.pid == os.getpid() and str(found).endswith(", job 77")
        assert claims.holder(tmp_path, "encode-2") is None
    assert not path.parent.exists()


def test_an_error_lets_go(tmp_path, path):
    with pytest.raises(KeyboardInterrupt), claims.hold(tmp_path, "encode-1"):
        raise KeyboardInterrupt
    assert not path.exists()


def test_the_dead_hold_nothing(tmp_path, path):
    """Of this machine at once; of others when a minute has passed without a sign."""
    child = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"],
        capture_output=True,
        check=True,
    )
    for fields, age_s, is_held in (
        ({"pid": int(child.stdout)}, 0, False),
        ({"pid": int(child.stdout), "machine": "another"}, 0, True),
        ({"machine": "another"}, claims.DEAD_S - 20, True),
        ({"machine": "another"}, claims.DEAD_S + 20, False),
        ({"pid": os.getpid()}, 0, True),
        ({"pid": os.getpid()}, claims.DEAD_S + 20, False),
    ):
        with claims.hold(tmp_path, "encode-1"):
            as_another(path, **fields)
            os.utime(path, (time.time() - age_s,) * 2)
            assert (claims.holder(tmp_path, "encode-1") is not None) == is_held, fields
            with claims.hold(tmp_path, "encode-1") as is_mine:
                assert is_mine != is_held
        path.unlink(missing_ok=True)


def test_a_holder_gives_signs_of_life_until_somebody_takes_over(tmp_path, path, monkeypatch):
    monkeypatch.setattr(claims, "BEAT_S", 0.02)

    def age_after_a_while():
        os.utime(path, (0, 0))
        time.sleep(0.3)
        return time.time() - path.stat().st_mtime

    with claims.hold(tmp_path, "encode-1"):
        assert age_after_a_while() < 10
        as_another(path)
        assert age_after_a_while() > 1e6
    assert path.exists()  # it is not ours


def test_half_a_claim_is_one(tmp_path, path):
    path.parent.mkdir()
    path.write_text('{"host": ')
    assert str(claims.holder(tmp_path, "encode-1")) == "process 0 on an unknown host"
    os.utime(path, (0, 0))
    assert claims.holder(tmp_path, "encode-1") is None


def test_where_no_claim_can_be_written_work_goes_on(tmp_path):
    (tmp_path / claims.FOLDER).write_text("a file")
    with claims.hold(tmp_path, "encode-1") as is_mine:
        assert is_mine
