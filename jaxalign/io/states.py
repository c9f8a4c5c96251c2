"""States of a training: written beside the steps that follow, and found again after a kill."""

import logging
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any, cast

import jax
from orbax.checkpoint import v1 as ocp

from jaxalign import processes
from jaxalign.errors import InputError, one_line
from jaxalign.io import orbax_tree

# How many are kept: of two, one is whole whenever the other is being written.
KEPT = 2


class States:
    """The last states of a training in a folder.

    Orbax writes them: each process its part of arrays that are divided over devices, in threads
    beside the steps that follow, and under another name until all is there.
    """

    def __init__(self, folder: pathlib.Path, owner: str):
        """Open a folder, which is made if it is not there; what a kill has left half done goes.

        Args:
          folder: of the states.
          owner: what fixes the training, such as a fingerprint.

        Raises:
          InputError: if the folder holds states of another training.
        """
        self.folder, self._owner = folder, owner
        logging.getLogger("absl").addFilter(_hides)
        self._open()
        halves: list[int] = []
        whole = 0
        for step in self.steps():
            found = self._owner_of(step)
            # What is older than those kept was being removed when a kill came, whatever is left.
            if found is None or whole == KEPT:
                halves.append(step)
            elif found != owner:
                self.close()
                raise InputError(
                    f"{folder} must hold states of this training ({owner}): it holds one of "
                    f"another model, recipe or data ({found}); remove it."
                )
            else:
                whole += 1
        self._remove(halves)

    def _owner_of(self, step: int) -> str | None:
        """Return what fixes the training of a state; None where so much of it is gone."""
        try:
            said = self._opened.metadata(step).custom_metadata
        except (ValueError, FileNotFoundError):  # Orbax's own of a layout is a ValueError
            return None
        found = said.get("owner") if isinstance(said, dict) else None
        return found if isinstance(found, str) else None

    def _open(self) -> None:
        self._opened = ocp.training.Checkpointer(
            str(self.folder.resolve()),
            context=orbax_tree.saving(),
            # Orbax declares a class of the same attributes in the place of its own.
            preservation_policy=cast(Any, ocp.training.preservation_policies.LatestN(KEPT)),
            cleanup_tmp_directories=True,
        )

    def keep_until(self, step: int) -> None:
        """Remove states of later steps, which are to be taken again.

        Args:
          step: the last one to keep; 0: none is kept.
        """
        self._remove([x for x in self.steps() if x > step])

    def _remove(self, steps: Sequence[int]) -> None:
        if not steps:
            return
        self._opened.close()
        remove = lambda: [shutil.rmtree(self.folder / str(x)) for x in steps] and None
        processes.decide(remove)
        self._open()

    def steps(self) -> list[int]:
        """Return the steps of which there is a whole state, the last one first."""
        return sorted((x.step for x in self._opened.checkpoints), reverse=True)

    def save(self, step: int, state: Any) -> None:
        """Begin to write a state, after the one before is written; see `close`.

        Its arrays may be used up by the next step as soon as this returns.

        Args:
          step: steps that were taken.
          state: a tree of arrays.
        """
        arrays = _named(jax.tree.leaves(state))
        # Without force a state is left out where the one before is still being written.
        self._opened.save_async(step, arrays, force=True, custom_metadata={"owner": self._owner})

    def load(self, step: int, like: Any) -> Any:
        """Read a state to the devices where another one lies.

        Args:
          step: of `steps`.
          like: a tree of arrays, of the same shapes and types.

        Raises:
          InputError: if it cannot be read.
        """
        leaves, tree = jax.tree.flatten(like)
        structs = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for x in leaves]
        try:
            found = self._opened.load(step, _named(structs))
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{self.folder} must hold whole states, of which that of step {step} cannot be "
                f"read: {one_line(error)}; remove {self.folder}."
            ) from error
        return jax.tree.unflatten(tree, [found[name] for name in _named(leaves)])

    def close(self) -> None:
        """Wait until what is being written is there."""
        self._opened.close()
        logging.getLogger("absl").removeFilter(_hides)


def _named(leaves: list) -> dict[str, Any]:
    return {f"{i:05d}": x for i, x in enumerate(leaves)}


def _hides(record: logging.LogRecord) -> bool:
    """Keep Orbax from saying every few steps what it does; its warnings pass."""
    if "orbax" not in record.pathname:
        return True
    return record.levelno > logging.INFO and orbax_tree.is_no_hint(record)
