"""A process that has imported everything and forks once a request: each child runs the real `curate` command line.

Importing torch and transformers takes longer than the whole tiny pipeline; a fork begins where the imports ended. The child is
a process of its own: it can be killed, interrupted, limited, and made to fail at any hook of the only writer.

Speaks JSON lines: {"argv", "out", "err", "report", "fault", "limit"} → {"pid"}; {"wait": pid, "seconds"} → {"status"}.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

LATE = (
    "altair",
    "pandas",
    "vl_convert",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
)
"""What a run imports only when it comes to it."""


def serve() -> None:
    """Answer requests until stdin ends."""
    _import_everything()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer = _wait(request["wait"], request["seconds"]) if "wait" in request else _start(request)
        if answer is None:
            return  # the child, when the command line is done
        print(json.dumps(answer), flush=True)


def _import_everything() -> None:
    for name in (
        "curate.cli.main",
        "curate.config",
        "curate.engine.flow",
        "curate.results.outcome",
        "curate.hub.publish",
        *LATE,
    ):
        import_module(name)
    for entry in import_module("curate.methods.registry").METHODS.values():
        entry.method()
    gc.freeze()  # a child that collects garbage would copy what it inherited


def _start(request: dict[str, Any]) -> dict[str, int] | None:
    pid = os.fork()
    if pid:
        return {"pid": pid}
    from curate.cli.main import main
    from curate.results import outcome

    os.setpgid(0, 0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), number)
    if request.get("limit"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["limit"], request["limit"]))
    if not request["report"]:  # it costs more than the rest of the tiny run, and its bytes are promised by nobody
        outcome.write_report = lambda root: root
    _install(request.get("fault") or {})
    sys.argv = ["curate", *request["argv"]]
    try:
        main()
    except SystemExit as ended:
        if request.get("quick"):  # no cluster to close: skip taking a gigabyte of modules apart
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(int(ended.code or 0))
        raise
    return None


def _install(fault: dict[str, Any]) -> None:
    """Replace the hook: count calls into a file, or die or fail at the n-th."""
    from curate.storage import atomic

    calls = 0

    def hook(operation: str, path: Path) -> None:
        nonlocal calls
        calls += 1
        if "count" in fault:
            with Path(fault["count"]).open("a") as stream:
                stream.write(f"{operation} {path}\n")
        if calls == fault.get("kill") or fault.get("kill_before", "\0") in str(path):
            os._exit(137)
        if calls >= fault.get("fail", calls + 1):
            raise OSError(fault["errno"], os.strerror(fault["errno"]))

    atomic.hook = hook


def _wait(pid: int, seconds: float) -> dict[str, int]:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return {"status": os.waitstatus_to_exitcode(status)}
        time.sleep(0.005)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return {"status": -1000}


if __name__ == "__main__":
    serve()
