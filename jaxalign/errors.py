"""The one exception for what a user can put right; anything else that is raised is a bug."""


class InputError(ValueError):
    """A setting, a file or a data set is not what it must be.

    The message says, in one line, what must hold, what was found and, where it is not obvious,
    what to do. `jaxalign.main` prints it without a traceback and exits with code 2.
    """
