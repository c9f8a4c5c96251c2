"""The one exception for what a user can put right; anything else that is raised is a bug."""


class InputError(ValueError):
    """A setting, a file or a data set is not what it must be.

    The message says, in one line, what must hold, what was found and, where it is not obvious,
    what to do. Command lines print it without a traceback and exit with code 2 (`command_line`).
    """


def one_line(error: BaseException) -> str:
    """Return the message of an error of another library in one line, without a stop at its end."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


class PlaceError(Exception):
    """A bucket in which artefacts lie, or a hub of models, cannot be read or written.

    It is no `OSError` and no `ValueError`, so that nobody takes it for a damaged file, which would
    be made again. `jaxalign.main` prints it without a traceback.

    Attributes:
      is_lost: whether the store could not be reached, so that the same may succeed later.
    """

    def __init__(self, message: str, *, is_lost: bool):
        super().__init__(message)
        self.is_lost = is_lost
