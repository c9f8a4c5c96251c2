"""Many calls of the entry point, each in a process of its own that need not import the package.

  python tests/support/forked_calls.py < CALLS

CALLS is a JSON list of lists of arguments; a list of [exit code, stdout, stderr] is written.
"""

import json
import os
import sys
import tempfile
import traceback

from jaxalign import main, runner  # noqa: F401  what children need is imported once
from jaxalign.stages import encode, extract, report  # noqa: F401


def call(arguments: list[str]) -> tuple[int, str, str]:
    """Run the entry point in a fork; JAX's devices are found there."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        pid = os.fork()
        if not pid:
            code = 1
            try:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                sys.argv = ["main", *arguments]
                main.cli()
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(bool(end.code))
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read())
        return os.waitstatus_to_exitcode(status), *texts


if __name__ == "__main__":
    json.dump([call(x) for x in json.load(sys.stdin)], sys.stdout)
