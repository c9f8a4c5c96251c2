"""Score rows -> tables, figures, pages; `jaxalign.report(...)` is `jaxalign.api.pages.report`."""

import importlib
import sys
import types


class _Package(types.ModuleType):
    """This package, which can be called.

    Python binds the name of a package in the one above it as soon as anything of it is imported,
    so a function `jaxalign.report` would be lost: the package is that function, too.
    """

    def __call__(
        self, scores, *, models=None, path="report", title="Brain alignment", compare=None
    ):
        """Write a report of scores; see `jaxalign.api.pages.report`."""
        # By its name when it is called: the interface is above this floor.
        own = importlib.import_module("jaxalign.api.pages")
        return own.report(scores, models=models, path=path, title=title, compare=compare)


sys.modules[__name__].__class__ = _Package
