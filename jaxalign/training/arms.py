"""Arms of the ablation: what a row is and what counts in the loss; everything else is the same."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxalign.errors import InputError
from jaxalign.training.instructions import Row

_SHUFFLED = 1  # tells this use of a seed from others


class Arm(NamedTuple):
    """One arm.

    Attributes:
      prompt: what stands before the response: the row's "own" instruction and input; its "input"
        alone under the heading of an instruction that is empty; the same "without heading";
        "another" row's; "nothing" but what begins every text.
      response: the row's "own", or as many tokens of a plain text ("corpus").
      learns_all: whether all tokens count in the loss, not those of the response alone.
      trains: whether the learning rate is not 0.
      isolates: what the difference from the other arms is due to.
    """

    prompt: str
    response: str = "own"
    learns_all: bool = False
    trains: bool = True
    isolates: str = ""


ARMS = {
    "instruction": Arm("own", isolates="instruction tuning as a whole"),
    "no_instruction": Arm("input", isolates="what instructions say; the heading stays"),
    "no_heading": Arm("without heading", isolates="what instructions say, and their heading"),
    "response_only": Arm("nothing", isolates="the distribution of responses"),
    "shuffled": Arm("another", isolates="which instruction a response belongs to"),
    "plain_lm": Arm("own", learns_all=True, isolates="that instructions are not learned"),
    "other_text": Arm("nothing", response="corpus", isolates="further training on any text"),
    "frozen": Arm("own", trains=False, isolates="the measurement: no difference may be left"),
}


def find(name: str) -> Arm:
    """Return an arm by its name.

    Raises:
      InputError: if there is none of this name.
    """
    if name not in ARMS:
        raise InputError(f"arm must be one of {', '.join(ARMS)}, got {name!r}.")
    return ARMS[name]


def rows(arm: Arm, given: Sequence[Row], *, seed: int) -> list[Row]:
    """Return the rows of an arm, in the order of the data; each keeps its response.

    Args:
      arm: of `ARMS`.
      given: rows with responses.
      seed: of whose prompt a row gets, where it is another's.

    Raises:
      InputError: if prompts are exchanged, and there is one row, or a conversation.
    """
    if arm.prompt == "another":
        return _with_other_prompts(given, seed)
    if arm.prompt in ("input", "without heading"):
        return [_without_instruction(row) for row in given]
    return list(given)


def _without_instruction(row: Row) -> Row:
    """Take away what is asked for; of conversations what the system says, too."""
    silent = lambda turn: turn._replace(text="") if turn.role == "user" else turn
    return row._replace(turns=tuple(silent(x) for x in row.turns if x.role != "system"))


def _with_other_prompts(given: Sequence[Row], seed: int) -> list[Row]:
    """Give each row the prompt of another: of the next one in a random order, which is a circle."""
    if len(given) < 2:
        raise InputError(f"arm shuffled needs at least two rows, found {len(given)}.")
    for row in given:
        if [turn.role for turn in row.turns] != ["user", "assistant"]:
            raise InputError(
                f"arm shuffled needs rows of one instruction and one response: {row.place} has "
                f"{len(row.turns)} turns."
            )
    order = np.random.default_rng([seed, _SHUFFLED]).permutation(len(given))
    found = list(given)
    for own, other in zip(order, np.roll(order, -1), strict=True):
        turns = (given[other].turns[0], given[own].turns[1])
        found[own] = given[own]._replace(turns=turns)
    return found
