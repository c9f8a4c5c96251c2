"""A small hub on this machine, which answers as that of Hugging Face does."""

import contextlib
import hashlib
import http.server
import json
import re
import threading

_INFO = re.compile(r"/api/models/([^/]+/[^/]+)/revision/([^/?]+)")
_FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


class Hub:
    """Repositories, and what was asked for.

    Attributes:
      repositories: files by name, by repository.
      commits: commit of each branch that the hub knows.
      gated: repositories that are handed to nobody.
      cut: of a file, after how many bytes the first answer breaks off.
      damaged: files whose content is not what the hub says it is.
      status: what everything is answered with, where it is not 0.
      asked: method, file and range of each request for a file.
    """

    def __init__(self):
        self.repositories, self.commits = {}, {"main": "1" * 40}
        self.gated, self.cut, self.damaged, self.status = set(), {}, set(), 0
        self.asked = []

    def fetched(self):
        """Return files whose content was asked for."""
        return [file for method, file, _ in self.asked if method == "GET"]


@contextlib.contextmanager
def served(hub):
    """Serve a hub; return its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self.answer()

        def do_GET(self):
            self.answer()

        def answer(self):
            path = self.path.partition("?")[0]
            info, file = _INFO.fullmatch(path), _FILE.fullmatch(path)
            if not (info or file):  # the library asks for its newest version, too
                return self.refuse(404, "")
            repository, revision = (info or file).group(1, 2)
            commit = revision if revision in hub.commits.values() else hub.commits.get(revision)
            if hub.status:
                self.refuse(hub.status, "")
            elif repository not in hub.repositories:
                self.refuse(404, "RepoNotFound")
            elif commit is None:
                self.refuse(404, "RevisionNotFound")
            elif info:
                self.describe(repository, commit)
            elif repository in hub.gated:
                self.refuse(403, "GatedRepo")
            else:
                self.send(hub.repositories[repository][file[3]], file[3], commit)

        def refuse(self, status, code):
            self.send_response(status)
            if code:
                self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def describe(self, repository, commit):
            siblings = []
            for name, content in hub.repositories[repository].items():
                digest = hashlib.sha256(content).hexdigest()
                lfs = {"sha256": digest, "size": len(content), "pointerSize": 100}
                own = {"rfilename": name, "size": len(content), "blobId": digest[:40]}
                siblings.append(own | ({} if name.endswith((".json", ".txt")) else {"lfs": lfs}))
            text = json.dumps({"id": repository, "sha": commit, "siblings": siblings}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def send(self, content, name, commit):
            wanted = self.headers.get("Range", "")
            hub.asked.append((self.command, name, wanted))
            digest = hashlib.sha256(content).hexdigest()
            if name in hub.damaged:
                content = bytes(len(content))
            first = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
            self.send_response(206 if wanted else 200)
            if wanted:
                rest = f"bytes {first}-{len(content) - 1}/{len(content)}"
                self.send_header("Content-Range", rest)
            self.send_header("ETag", f'"{digest}"')
            self.send_header("X-Repo-Commit", commit)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(content) - first))
            self.end_headers()
            if self.command == "HEAD":
                return
            if name in hub.cut and not wanted:
                self.wfile.write(content[: hub.cut.pop(name)])
                self.close_connection = True
            else:
                self.wfile.write(content[first:])

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
