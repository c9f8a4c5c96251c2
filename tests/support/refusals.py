"""How a test expects bad input to be refused."""

import contextlib
import re

import pytest

from jaxalign.errors import InputError


@contextlib.contextmanager
def refused(*parts):
    """Expect an InputError of one line that holds these words in this order."""
    pattern = ".*".join(re.escape(str(part)) for part in parts)
    with pytest.raises(InputError, match=pattern) as info:
        yield
    assert "\n" not in str(info.value)
