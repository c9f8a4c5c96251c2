"""Chats as a model's template writes them, rendered where a hostile template can do no harm."""

import atexit
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

from jaxalign.errors import InputError, one_line

Turns = Sequence[dict[str, str]]  # "role" and "content" of each

_SCRIPT = str(pathlib.Path(__file__).with_name("chat_worker.py"))
# What a template may take for one request, that is at most so many chats. They take milliseconds.
_AT_ONCE = 256
SECONDS = 10
CHARACTERS = 10_000_000
MEGABYTES = 512  # of memory, where the system bounds it (Linux)


class TemplateError(InputError):
    """A template that does not take the turns it was given."""


def render(
    tokenizer: Any,
    chats: Sequence[Turns],
    *,
    source: object,
    ask: bool = False,
    continued: bool = False,
) -> list[str]:
    """Write chats as transformers does, in a process with little time and memory.

    Args:
      tokenizer: of transformers, with a chat template.
      chats: the turns of each.
      source: what to call the tokenizer in an error.
      ask: whether the beginning of an answer follows.
      continued: whether the last turn is left open.

    Raises:
      TemplateError: if the template does not take the turns.
      InputError: if it takes too much time or memory, or writes too much.
    """
    try:
        template = tokenizer.get_chat_template()
    except ValueError as error:
        raise InputError(f"{source}: {one_line(error)}.") from error
    texts = []
    for start in range(0, len(chats), _AT_ONCE):
        settings = {
            "conversations": [list(turns) for turns in chats[start : start + _AT_ONCE]],
            "chat_template": template,
            "add_generation_prompt": ask,
            "continue_final_message": continued,
        }
        variables = tokenizer.special_tokens_map
        bounds = {"seconds": SECONDS, "characters": CHARACTERS}
        answer = _worker.answer({"settings": settings, "variables": variables} | bounds)
        if "bound" in answer:
            raise InputError(
                f"{source}: the chat template must be a short program, but it takes more than "
                f"{answer['bound']}."
            )
        if "error" in answer:
            reason = " ".join(answer["error"].split()).rstrip(".")
            raise TemplateError(f"{source}: the chat template must take these turns: {reason}.")
        texts += answer["texts"]
    return texts


class _Worker:
    """The process, which is started when it is first needed and after it has ended."""

    def __init__(self):
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def answer(self, request: dict) -> dict:
        """Return the answer to one request; see `chat_worker`."""
        with self._lock:
            process = self._process or self._start()
            assert process.stdin and process.stdout
            try:
                process.stdin.write(json.dumps(request, default=str) + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except BrokenPipeError:
                line = ""
            except BaseException:  # interrupted: what comes next would be the answer to this
                process.kill()
                self._end()
                raise
            if line:
                return json.loads(line)
            code = self._end()
        if code == -signal.SIGALRM:
            return {"bound": f"{request['seconds']} s"}
        return {"error": f"the process that renders it has ended with {code}"}

    def _start(self) -> subprocess.Popen[str]:
        # -P: the script's folder, which holds other modules, is no place to import from.
        self._process = subprocess.Popen(
            [sys.executable, "-P", _SCRIPT, str(MEGABYTES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="ascii",
            env=os.environ | {"TRANSFORMERS_NO_ADVISORY_WARNINGS": "1"},
        )
        atexit.register(self._end)
        return self._process

    def _end(self) -> int:
        """Wait until the process has ended; return its code."""
        process, self._process = self._process, None
        if process is None:
            return 0
        assert process.stdin and process.stdout
        process.stdout.close()
        try:
            process.stdin.close()
        except BrokenPipeError:
            pass
        atexit.unregister(self._end)
        return process.wait()


_worker = _Worker()
