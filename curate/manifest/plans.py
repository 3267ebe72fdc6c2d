"""What a generation will be made of, written before it is begun: so that a killed one is finished as it was meant."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from curate.errors import IntegrityError
from curate.storage import atomic, records
from curate.storage.fingerprint import canonical, fingerprint
from curate.storage.paths import RunPaths


@dataclass(frozen=True)
class Plan:
    """One generation to come.

    Attributes:
        generation: its number.
        step: steps that the proxy had trained; 0 for the proxy as the run made it.
        checkpoint: name of the checkpoint that it is, if another trainer wrote it.
        files: sha256 of that checkpoint's weights, by name; empty where the proxy is the one of the generation before.
        stale: generations in a row, this one included, that had no new checkpoint.
        refused: newer checkpoints that could not be used, and why.
        shards: those to weigh anew, in order.
    """

    generation: int
    step: int = 0
    checkpoint: str | None = None
    files: dict[str, str] = field(default_factory=dict)
    stale: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    shards: tuple[int, ...] = ()

    @property
    def source(self) -> dict[str, Any]:
        """What the generation's record says of its proxy."""
        named = ("step", "checkpoint", "files", "stale", "refused")
        return {name: value for name, value in asdict(self).items() if name in named}


def save(paths: RunPaths, plan: Plan) -> None:
    """Write a plan, in place of another for the same generation."""
    content = {**asdict(plan), "shards": list(plan.shards)}
    atomic.write_bytes(paths.plan(plan.generation), canonical({**content, "self": fingerprint(content)}) + b"\n")


def load(paths: RunPaths, generation: int) -> Plan | None:
    """The plan of a generation, or None if there is none. Raises IntegrityError if it was changed."""
    path = paths.plan(generation)
    try:
        content = records.parse(path.read_bytes())
        stated = content.pop("self")
        plan = Plan(**{**content, "shards": tuple(content["shards"])})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(str(path), f"unreadable content ({error})") from error
    if fingerprint(content) != stated:
        raise _damaged(str(path), "bytes that do not match their own hash")
    return plan


def require(paths: RunPaths, generation: int) -> Plan:
    """The plan of a generation that is being made. Raises IntegrityError."""
    plan = load(paths, generation)
    if plan is None:
        raise _damaged(str(paths.plan(generation)), "no such file")
    return plan


def _damaged(where: str, found: str) -> IntegrityError:
    fix = "Remove the file: the generation is planned anew."
    return IntegrityError(where, found, "the plan of a generation", fix)
