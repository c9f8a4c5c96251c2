"""The process that renders chat templates: they are programs of strangers, so it is bounded.

A script, started by `chats` with the megabytes of memory that it may use beyond what the libraries
need; it imports nothing of this package. Each line of its input is one request in JSON, with the
seconds that it may take and the characters that it may write; each line of its output the answer.
"""

import json
import os
import signal
import sys


def main() -> None:
    """Answer requests until there are none left."""
    # What a library prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    from transformers.utils.chat_template_utils import render_jinja_template

    megabytes = int(sys.argv[1])
    _bound_memory(megabytes * 2**20)
    for line in sys.stdin:
        request = json.loads(line)
        # The default action of the signal ends the process, whatever it is busy with.
        signal.alarm(request["seconds"])
        try:
            texts, _ = render_jinja_template(**request["settings"], **request["variables"])
            if sum(map(len, texts)) > request["characters"]:
                answer = {"bound": f"{request['characters']:,} characters"}
            else:
                answer = {"texts": texts}
        except MemoryError:
            answer = {"bound": f"{megabytes} MB of memory"}
        except Exception as error:  # templates are programs
            answer = {"error": str(error) or type(error).__name__}
        texts = None
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        signal.alarm(0)


def _bound_memory(extra: int) -> None:
    """Bound the address space, where the system tells how large it is (Linux)."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[0])
    except OSError:
        return  # time alone is the bound
    import resource

    most = pages * resource.getpagesize() + extra
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))


if __name__ == "__main__":
    main()
