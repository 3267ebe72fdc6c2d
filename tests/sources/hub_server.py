"""A Hub of one dataset on the loopback interface, for the real client."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Hub:
    """Commits of the dataset, its branches, and the requests it has seen."""

    name: str
    commits: dict[str, dict[str, bytes]]
    branches: dict[str, str]
    url: str = ""
    seen: list[str] = field(default_factory=list)

    def commit_of(self, revision: str) -> str | None:
        commit = self.branches.get(revision, revision)
        return commit if commit in self.commits else None


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve `hub` until the block ends; `hub.url` says where."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hub.seen.append(self.path)
            if match := re.fullmatch(rf"/api/datasets/{hub.name}(?:/revision/([^/?]+))?(?:\?.*)?", self.path):
                self._info(hub.commit_of(match[1] or "main"))
            elif match := re.fullmatch(rf"/datasets/{hub.name}/resolve/([^/]+)/(.+)", self.path):
                commit = hub.commit_of(match[1])
                self._file(commit, hub.commits.get(commit or "", {}).get(match[2]))
            else:
                self._refuse("RepoNotFound")

        do_HEAD = do_GET  # noqa: N815  the name http.server calls

        def _info(self, commit: str | None) -> None:
            if commit is None:
                return self._refuse("RevisionNotFound")
            files = [{"rfilename": name} for name in hub.commits[commit]]
            body = json.dumps({"_id": "1", "id": hub.name, "sha": commit, "siblings": files, "tags": []}).encode()
            return self._send(200, body, {"Content-Type": "application/json"})

        def _file(self, commit: str | None, data: bytes | None) -> None:
            if commit is None or data is None:
                return self._refuse("EntryNotFound")
            etag = hashlib.sha256(data).hexdigest()
            return self._send(200, data, {"ETag": f'"{etag}"', "X-Repo-Commit": commit})

        def _refuse(self, code: str) -> None:
            self._send(404, b"", {"X-Error-Code": code, "X-Error-Message": code})

        def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
