"""The verb that puts a dataset on the Hub: parse, call, print."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from curate.cli.options import Json, RunDir
from curate.cli.output import document, say, table
from curate.reports.figures import amount, size


def publish(
    source: RunDir,
    repo_id: Annotated[str, typer.Argument(metavar="REPO_ID", help="Dataset on the Hub, as ORG/NAME.")],
    private: Annotated[
        bool, typer.Option("--private", help="Create the dataset private; fail if it exists and is public.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and list the files; upload nothing.")] = False,
    onto: Annotated[
        str | None, typer.Option(metavar="COMMIT", help="Overwrite the branch if it is still at COMMIT.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Upload the dataset to the Hub and verify every file.

    Run again to resume, or to publish a new version.
    """
    from curate.hub.publish import publish as publish_run
    from curate.reports.progress import observer

    done = publish_run(source, repo_id, private=private, dry_run=dry_run, onto=onto, observer=observer(sys.stderr))
    if as_json:
        from curate.cli.documents.others import File, Publish

        files = [File(path=file.path, bytes=file.size, sha256=file.sha256) for file in done.files]
        own = {"dry_run": dry_run, "url": done.url, "commit": done.commit, "changed": done.changed}
        document(Publish(**own, bytes=done.size, files=files))
    else:
        _show(done)


def _show(done: Any) -> None:
    from curate.cli import tables

    if done.commit is None:
        shown = tables.table("file", "bytes", "sha256", left=("sha256",))
        for file in done.files:
            shown.add_row(file.path, amount(file.size), file.sha256)
        table(shown)
    what = "dry run, nothing was sent" if done.commit is None else "published" if done.changed else "already there"
    at = f" at {done.commit}" if done.commit else ""
    say(f"{what}: {len(done.files)} files, {size(done.size)}, {done.url}{at}")
