"""Stimuli for tests of tokens and contexts."""

from jaxalign.data.schema import Stimuli

# Each is one token of all-MiniLM-L6-v2.
NUMBERS = "one two three four five six seven eight nine ten eleven twelve".split()


def words(*text, passage=None):
    m = len(text)
    return Stimuli(
        stimulus_id=[f"w{i}" for i in range(m)],
        text=text,
        passage=passage or ["p"] * m,
        run=["r"] * m,
        unit="word",
        language="en",
    )
