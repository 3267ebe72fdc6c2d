"""A process that has imported everything and forks once a command: `python warm.py SOCKET`.

Importing torch and transformers takes longer than most commands of a page; a fork begins where the imports ended. A page's bash
finds `curate` first in PATH as a file that hands its arguments, environment, directory and standard streams over and ends as the
fork ends. Where a page does not say how many workers, the command does the work itself: the same bytes, and no cluster to start.
`make test-slow` runs the same pages as a user does, with processes and workers of their own.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import pkgutil
import runpy
import signal
import socket
import sys
import threading
import traceback
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

from docs.generate.names import module

SHIM = """#!{python} -IS
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({path!r})
asked = {{"argv": sys.argv[{first}:], "cwd": os.getcwd(), "environment": dict(os.environ)}}
socket.send_fds(server, [json.dumps(asked).encode() + b"\\n"], [0, 1, 2])
sys.exit(int(server.makefile().read() or 70))
"""
LATE = (
    "altair",
    "vl_convert",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
)
"""Of other packages."""


def serve(path: str) -> None:
    """Answer commands until the process that asks is gone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of modules that have moved
        import_everything()
    without_workers()
    gc.freeze()  # a child that collects garbage would copy what it inherited
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    print("ready", flush=True)
    threading.Thread(target=leave_with_stdin, daemon=True).start()
    while True:
        connection, _ = server.accept()
        if os.fork() == 0:
            server.close()
            answer(connection)
        connection.close()


def import_everything() -> None:
    """All of curate, and what a command imports only when it comes to it."""
    for found in pkgutil.walk_packages(import_module("curate").__path__, "curate."):
        if not found.name.endswith("__main__"):
            import_module(found.name)
    for name in LATE:
        import_module(name)


def without_workers() -> None:
    """Where a pipeline file says nothing, tasks run in the process of the command."""
    settings = module("executors").ClusterConfig
    settings.model_fields["workers"].default = 0
    settings.model_rebuild(force=True)
    module("preload").start_for = lambda *arguments: None


def leave_with_stdin() -> None:
    sys.stdin.read()
    os._exit(0)


def answer(connection: socket.socket) -> None:
    """In a fork of its own: run one command in another fork and say how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    text, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    while not text.endswith(b"\n"):
        text += connection.recv(1 << 20)
    pid = os.fork()
    if pid == 0:
        connection.close()
        become(json.loads(text), streams)
    for stream in streams:
        os.close(stream)
    _, status = os.waitpid(pid, 0)
    connection.sendall(str(os.waitstatus_to_exitcode(status) % 256).encode())
    os._exit(0)


def become(asked: dict[str, Any], streams: list[int]) -> None:
    """Be the process that was asked for, to its end."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - the old ones remember what they were connected to
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.argv = asked["argv"]
    code = 0
    try:
        run()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # not taking a gigabyte of modules apart


def run() -> None:
    """`curate` with these arguments, or the script that they begin with."""
    if Path(sys.argv[0]).suffix == ".py":
        sys.path.insert(0, str(Path(sys.argv[0]).resolve().parent))
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        import_module("curate.cli").main()


if __name__ == "__main__":
    serve(sys.argv[1])
