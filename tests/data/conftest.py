"""What the tests of data sets share: an expected refusal, and a folder in the user's layout."""

import contextlib
import re

import pytest

from jaxalign.data.schema import Responses
from jaxalign.errors import InputError


@pytest.fixture
def refused():
    """Expect an InputError of one line that holds these words in this order."""

    @contextlib.contextmanager
    def expect(*parts):
        pattern = ".*".join(re.escape(str(part)) for part in parts)
        with pytest.raises(InputError, match=pattern) as info:
            yield
        assert "\n" not in str(info.value)

    return expect


@pytest.fixture
def make_folder(tmp_path, rng):
    """Write `stimuli.csv` as given, and `responses.npz` to stimuli `a`, `b` and `c`."""

    def make(csv, responses=None):
        folder = tmp_path / "mine"
        folder.mkdir(exist_ok=True)
        (folder / "stimuli.csv").write_bytes(csv.encode() if isinstance(csv, str) else csv)
        responses = responses or Responses(
            values=rng.normal(size=(3, 2)),
            run=["r"] * 3,
            subject=["s1", "s2"],
            roi=["LATL"] * 2,
            target=["mean"] * 2,
            units="percent signal change",
            stimulus_id=["a", "b", "c"],
        )
        (folder / "responses.npz").write_bytes(responses.to_bytes())
        return folder

    return make
