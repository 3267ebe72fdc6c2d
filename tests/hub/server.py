"""The Hub's HTTP API for datasets on the loopback interface, for the real client; and everything that can go wrong on the way.

What is spoken: whoami, create, info, tree, paths-info, preupload, LFS batch, upload and verify, commit, validate-yaml,
discussions, merge, resolve. Storage by Xet is not: clients must set HF_HUB_DISABLE_XET.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from tests.hub.repository import File, PullRequest, RefusedError, Repository

SIZES = (
    "n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "1B<n<10B", "10B<n<100B",
    "100B<n<1T", "n>1T",
)  # fmt: skip
LARGE = (".parquet", ".png")
Kind = Literal["refuse", "accept", "drop", "drop half", "drop after"]


@dataclass
class Fault:
    """Something that goes wrong with the requests that `line` (a pattern of "METHOD /path") names.

    Attributes:
        line: searched in the request's line.
        kind: refuse: answer `status` and do nothing; accept: do it, then answer `status`; drop, drop half, drop after: close
            the connection before reading the body, in the middle of it, or when the thing is done.
        status: of the answer.
        headers: of the answer.
        times: how often.
        skip: let so many pass first.
    """

    line: str
    kind: Kind = "refuse"
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 1
    skip: int = 0

    def strikes(self, line: str) -> bool:
        """Whether it is this request's turn."""
        if not re.search(self.line, line) or self.times == 0:
            return False
        self.skip -= 1
        if self.skip >= 0:
            return False
        self.times -= 1
        return True


@dataclass(frozen=True)
class Request:
    """What a client sent."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Hub:
    """Repositories, who may write, what was asked, and what is to go wrong.

    Attributes:
        tokens: user of every valid token; `owners` says who may write where.
        hook: called with the phase ("before", "after") and the request; tests kill the client or move a branch from here.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    owners: dict[str, set[str]] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    seen: list[Request] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    hook: Callable[[str, Request], None] = lambda phase, request: None
    drafts: bool = False
    page: int = 1000
    url: str = ""
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def lines(self) -> list[str]:
        return [request.line for request in self.seen]

    def writes(self) -> list[str]:
        """Requests that change something."""
        return [line for line in self.lines if re.search(r"/create|/commit/|/merge$|/status$|^PUT", line)]


Answer = tuple[int, bytes, dict[str, str]]


class Api:
    """One request of one user, answered."""

    def __init__(self, hub: Hub, request: Request, user: str | None) -> None:
        self.hub, self.request, self.user = hub, request, user
        self.method, target = request.line.split(" ", 1)
        self.path = urlsplit(target).path
        self.query = {key: values[-1] for key, values in parse_qs(urlsplit(target).query).items()}

    def answer(self) -> Answer:
        for pattern, reply in ROUTES.items():
            if match := re.fullmatch(pattern, f"{self.method} {self.path}"):
                return reply(self, *map(unquote, match.groups()))
        raise RefusedError(404, f"no such route: {self.method} {self.path}", "EntryNotFound")

    # Who and what

    def json(self) -> Any:
        return json.loads(self.request.body)

    def repository(self, name: str, *, write: bool = False) -> Repository:
        found = self.hub.repositories.get(name)
        if found is None or (found.private and not self.may_write(name)):
            raise RefusedError(404 if self.user else 401, "Repository not found", "RepoNotFound")
        if write and self.user is None:
            raise RefusedError(401, "Invalid username or password.")
        if write and not self.may_write(name):
            raise RefusedError(403, "You don't have the required permissions to perform this action")
        return found

    def may_write(self, name: str) -> bool:
        owner = name.split("/")[0]
        return self.user is not None and (self.user == owner or owner in self.hub.owners.get(self.user, set()))

    def whoami(self) -> Answer:
        if self.user is None:
            raise RefusedError(401, "Invalid user token.")
        return told({"type": "user", "name": self.user, "auth": {"type": "access_token"}})

    def create(self) -> Answer:
        asked = self.json()
        name = f"{asked['organization'] or self.user}/{asked['name']}"
        if self.user is None:
            raise RefusedError(401, "Invalid username or password.")
        if not self.may_write(name):
            raise RefusedError(
                403, f"You don't have the rights to create a dataset under the namespace {name.split('/')[0]}"
            )
        if name in self.hub.repositories:
            raise RefusedError(409, "You already created this dataset repo")
        self.hub.repositories[name] = Repository(name, private=asked.get("visibility") == "private")
        return told({"url": f"{self.hub.url}/datasets/{name}", "id": name})

    def validate(self) -> Answer:
        content = self.json()["content"]
        header = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
        errors = []
        parsed = yaml.safe_load(header[1]) if header else {}
        sizes = parsed.get("size_categories", [])
        errors += [f'"size_categories" must be one of {SIZES}'] if set(sizes) - set(SIZES) else []
        for config in parsed.get("configs", []):
            good = isinstance(config.get("config_name"), str) and config.get("data_files")
            errors += [] if good else ['"configs[0]" needs config_name and data_files']
        errors += [] if all(isinstance(tag, str) for tag in parsed.get("tags", [])) else ['"tags" must be strings']
        body = {"errors": [{"message": error} for error in errors], "warnings": []}
        return 400 if errors else 200, json.dumps(body).encode(), {"Content-Type": "application/json"}

    # Reading

    def info(self, name: str, revision: str = "main") -> Answer:
        repository = self.repository(name)
        oid = repository.oid(revision)
        siblings = [{"rfilename": path} for path in sorted(repository.files(revision))]
        stated = {"_id": "1", "id": name, "sha": oid, "private": repository.private, "siblings": siblings, "tags": []}
        return told({**stated, "downloads": 0, "likes": 0, "gated": False, "disabled": False})

    def tree(self, name: str, revision: str, path: str = "") -> Answer:
        files = self.repository(name).files(revision)
        under = f"{path}/" if path else ""
        inside = {name: file for name, file in files.items() if name.startswith(under)}
        if path and not inside:
            raise RefusedError(404, f"{path} does not exist on {revision}", "EntryNotFound")
        deep = self.query.get("recursive", "").lower() == "true"
        flat = {name: file for name, file in inside.items() if deep or "/" not in name.removeprefix(under)}
        folders = {under + name.removeprefix(under).split("/")[0] for name in inside if "/" in name.removeprefix(under)}
        rows = [{"type": "directory", "path": folder, "oid": "0" * 40, "size": 0} for folder in sorted(folders)]
        rows += [entry(path, file) for path, file in sorted(flat.items())]
        start = int(self.query.get("cursor", 0))
        headers = {}
        if start + self.hub.page < len(rows):
            recursive = "true" if deep else "false"
            following = f"{self.hub.url}{self.path}?recursive={recursive}&cursor={start + self.hub.page}"
            headers["Link"] = f'<{following}>; rel="next"'
        return told(rows[start : start + self.hub.page], headers)

    def paths(self, name: str, revision: str) -> Answer:
        files = self.repository(name).files(revision)
        asked = parse_qs(self.request.body.decode()).get("paths", [])
        rows = [entry(path, files[path]) for path in asked if path in files]
        folders = [path for path in asked if any(name.startswith(f"{path}/") for name in files)]
        return told([*rows, *({"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in folders)])

    def resolve(self, name: str, revision: str, path: str) -> Answer:
        repository = self.repository(name)
        file = repository.files(revision).get(path)
        if file is None:
            raise RefusedError(404, "Entry not found", "EntryNotFound")
        etag = file.sha256 if file.lfs else file.oid
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": repository.oid(revision), "Accept-Ranges": "bytes"}
        if (span := re.fullmatch(r"bytes=(\d+)-(\d*)", self.request.headers.get("range", ""))) is None:
            return 200, file.data, headers
        start, end = int(span[1]), min(int(span[2] or len(file.data) - 1), len(file.data) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(file.data)}"
        return 206, file.data[start : end + 1], headers

    # Writing

    def preupload(self, name: str, revision: str) -> Answer:
        files = self.repository(name, write=True).files(revision)
        modes = []
        for asked in self.json()["files"]:
            now, large = files.get(asked["path"]), asked["path"].endswith(LARGE)
            oid = (now.sha256 if now.lfs else now.oid) if now is not None else None
            modes.append(
                {"path": asked["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}
            )
        return told({"files": modes})

    def batch(self, name: str) -> Answer:
        self.repository(name, write=True)
        objects = []
        for asked in self.json()["objects"]:
            known = asked["oid"] in self.hub.objects
            upload = {"href": f"{self.hub.url}/lfs/{asked['oid']}", "header": {}}
            verify = {"href": f"{self.hub.url}/lfs-verify", "header": {}}
            objects.append({**asked, **({} if known else {"actions": {"upload": upload, "verify": verify}})})
        return told({"transfer": "basic", "objects": objects}, {"Content-Type": "application/vnd.git-lfs+json"})

    def upload(self, oid: str) -> Answer:
        if hashlib.sha256(self.request.body).hexdigest() != oid:
            raise RefusedError(400, "the bytes are not those that were announced")
        self.hub.objects[oid] = self.request.body
        return told({})

    def verify(self) -> Answer:
        asked = self.json()
        if len(self.hub.objects.get(asked["oid"], b"")) != asked["size"]:
            raise RefusedError(404, "no such object")
        return told({})

    def commit(self, name: str, revision: str) -> Answer:
        lines = [json.loads(line) for line in self.request.body.splitlines()]
        header, changes = lines[0]["value"], {}
        for line in lines[1:]:
            changes[line["value"]["path"]] = self._change(line["key"], line["value"])
        repository, parent = self.repository(name, write=True), header.get("parentCommit")
        answer: dict[str, Any] = {"success": True}
        if self.query.get("create_pr"):
            pull = repository.open(header["summary"], self.user or "", changes=changes, parent=parent)
            pull.status = "draft" if self.hub.drafts else "open"
            revision, answer["pullRequestUrl"] = pull.ref, f"{self.hub.url}/datasets/{name}/discussions/{pull.number}"
        else:
            repository.commit(revision, header["summary"], changes=changes, parent=parent)
        oid = repository.refs[revision]
        return told({**answer, "commitOid": oid, "commitUrl": f"{self.hub.url}/datasets/{name}/commit/{oid}"})

    def _change(self, key: str, value: dict[str, Any]) -> File | None:
        if key == "deletedFile":
            return None
        if key == "file":
            return File(base64.b64decode(value["content"]))
        if value["oid"] not in self.hub.objects:
            raise RefusedError(400, f"{value['path']} points to an object that was never uploaded")
        return File(self.hub.objects[value["oid"]], lfs=True)

    # Pull requests

    def discussions(self, name: str) -> Answer:
        repository = self.repository(name)
        author, start = self.query.get("author"), 2 * int(self.query.get("p", 0))
        found = [pull for pull in reversed(repository.pulls) if author in (None, pull.author)]
        rows = [discussion(name, pull) for pull in found[start : start + 2]]
        return told({"count": len(found), "start": start, "discussions": rows})

    def details(self, name: str, number: str) -> Answer:
        pull = self.repository(name).pull(int(number))
        changes = {"base": "refs/heads/main", "mergeCommitId": pull.merged_as}
        return told({**discussion(name, pull), "changes": changes, "filesWithConflicts": [], "events": [], "diff": ""})

    def status(self, name: str, number: str) -> Answer:
        pull = self.repository(name, write=True).pull(int(number))
        pull.status = self.json()["status"]
        event = {"id": "1", "type": "status-change", "createdAt": NOW, "author": {"name": pull.author}}
        return told({"newStatus": {**event, "data": {"status": pull.status}}})

    def merge(self, name: str, number: str) -> Answer:
        self.repository(name, write=True).merge(int(number))
        return told({})


NOW = "2026-01-01T00:00:00.000Z"
NAME = r"([\w.-]+/[\w.-]+)"
ROUTES: dict[str, Callable[..., Answer]] = {
    r"GET /api/whoami-v2": Api.whoami,
    r"POST /api/repos/create": Api.create,
    r"POST /api/validate-yaml": Api.validate,
    rf"GET /api/datasets/{NAME}": Api.info,
    rf"GET /api/datasets/{NAME}/revision/([^/]+)": Api.info,
    rf"GET /api/datasets/{NAME}/tree/([^/]+)(?:/(.+))": Api.tree,
    rf"GET /api/datasets/{NAME}/tree/([^/]+)": Api.tree,
    rf"POST /api/datasets/{NAME}/paths-info/([^/]+)": Api.paths,
    rf"POST /api/datasets/{NAME}/preupload/([^/]+)": Api.preupload,
    rf"POST /datasets/{NAME}\.git/info/lfs/objects/batch": Api.batch,
    r"PUT /lfs/([0-9a-f]{64})": Api.upload,
    r"POST /lfs-verify": Api.verify,
    rf"POST /api/datasets/{NAME}/commit/([^/]+)": Api.commit,
    rf"GET /api/datasets/{NAME}/discussions": Api.discussions,
    rf"GET /api/datasets/{NAME}/discussions/(\d+)": Api.details,
    rf"POST /api/datasets/{NAME}/discussions/(\d+)/status": Api.status,
    rf"POST /api/datasets/{NAME}/discussions/(\d+)/merge": Api.merge,
    rf"(?:GET|HEAD) /datasets/{NAME}/resolve/([^/]+)/(.+)": Api.resolve,
}


def told(content: Any, headers: dict[str, str] | None = None) -> Answer:
    return 200, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})}


def entry(path: str, file: File) -> dict[str, Any]:
    """A file as tree and paths-info list it."""
    row: dict[str, Any] = {"type": "file", "path": path, "oid": file.oid, "size": len(file.data)}
    return row | ({"lfs": {"oid": file.sha256, "size": len(file.data), "pointerSize": 130}} if file.lfs else {})


def discussion(name: str, pull: PullRequest) -> dict[str, Any]:
    """A pull request as the list of them shows it."""
    stated = {"num": pull.number, "title": pull.title, "status": pull.status, "isPullRequest": True, "createdAt": NOW}
    return {**stated, "author": {"name": pull.author}, "repo": {"name": name, "type": "dataset"}}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that is killed breaks its connection: no news. Anything else is a fault of this server."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve `hub` until the block ends; `hub.url` says where."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            line = f"{self.command} {self.path}"
            fault = next((fault for fault in hub.faults if fault.strikes(line)), None)
            if fault is not None and fault.kind == "drop":
                return self._hang_up()
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length // 2 if fault is not None and fault.kind == "drop half" else length)
            request = Request(line, {name.lower(): value for name, value in self.headers.items()}, body)
            with hub.lock:
                hub.seen.append(request)
                hub.hook("before", request)
                if fault is not None and fault.kind == "drop half":
                    return self._hang_up()
                if fault is not None and fault.kind == "refuse":
                    return self._send(fault.status, b"{}", fault.headers)
                answer = self._answer(request)
                hub.hook("after", request)
            if fault is not None and fault.kind == "drop after":
                return self._hang_up()
            return self._send(fault.status, b"{}", fault.headers) if fault is not None else self._send(*answer)

        do_GET = do_HEAD = do_POST = do_PUT = _serve  # noqa: N815  the names http.server calls

        def _answer(self, request: Request) -> Answer:
            token = request.headers.get("authorization", "").removeprefix("Bearer ")
            try:
                if token and token not in hub.tokens:
                    raise RefusedError(401, "Invalid credentials in Authorization header")
                return Api(hub, request, hub.tokens.get(token)).answer()
            except RefusedError as no:
                headers = {"X-Error-Message": no.message, "Content-Type": "application/json"}
                headers |= {"X-Error-Code": no.code} if no.code else {}
                return no.status, json.dumps({"error": no.message}).encode(), headers

        def _hang_up(self) -> None:
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

        def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            with suppress(OSError):  # a client that was killed reads nothing
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = _Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
