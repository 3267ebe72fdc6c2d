"""What a failed request to the Hub means: refused for good, refused for now, or nobody knows whether it was done."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from json import JSONDecodeError

from huggingface_hub.errors import (
    HfHubHTTPError,
    HTTPError,  # pyright: ignore[reportPrivateImportUsage]  the client's own base class, whichever client it is
    OfflineModeIsEnabled,
)
from huggingface_hub.utils import parse_ratelimit_headers

from curate.errors import PublishError
from curate.storage.limits import shown

UNCERTAIN = (HTTPError, OSError, RuntimeError, ValueError, KeyError)
"""What the client raises when an answer is missing, refuses, or cannot be read."""
LATER = (408, 425, 429)
UNCHANGED = "Correct what the message names, then run the same command again; main is unchanged."
TOKEN = re.compile(r"(hf|api_org)_\w{4,}")
LONGEST = 600.0
"""Seconds: the longest wait that a Hub may ask for."""


class Patience:
    """How often in a row something may fail before it is the end.

    Args:
        where: the dataset.
        pauses: seconds to wait after each failure in a row.
        note: hears why there is a pause.
    """

    def __init__(self, where: str, pauses: Sequence[float], note: Callable[[str], None]) -> None:
        self._where, self._pauses, self._note = where, pauses, note
        self._spent = 0

    def renew(self) -> None:
        """The Hub answered, and something has changed."""
        self._spent = 0

    def wait(self, error: Exception | None) -> None:
        """Pause before another look; None stands for a step that was accepted and changed nothing.

        Raises:
            PublishError: the Hub refused for good, or failed too often.
        """
        cause = _cause(error) if error is not None else None
        if cause is not None:
            refuse(self._where, cause)
        told = _told(cause) if cause else "files that it accepted are missing"
        if self._spent >= len(self._pauses):
            fix = "Check the network and HF_ENDPOINT, then run the same command again: it continues."
            raise PublishError(
                self._where, f"no usable answer from the Hub ({told})", "a Hub that answers", fix
            ) from error
        pause = max(self._pauses[self._spent], _asked(cause))
        self._note(f"waiting {pause:g} s for the Hub: {told}")
        self._spent += 1
        time.sleep(pause)


def refuse(where: str, error: Exception) -> None:
    """Raise the PublishError of an answer that means no; return where another look may help."""
    if isinstance(error, OfflineModeIsEnabled):
        raise PublishError(where, "offline mode", "a reachable Hub", "Unset HF_HUB_OFFLINE.") from error
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if status == 401:
        fix = "Set HF_TOKEN to a valid token, or log in with `hf auth login`."
        raise PublishError(
            where, f"a token that the Hub does not accept ({_told(error)})", "a valid one", fix
        ) from error
    if status in (402, 403):
        fix = f"Use a token with write access to {where.split('/')[0]}, or another REPO_ID."
        raise PublishError(where, f"no permission ({_told(error)})", "the right to write there", fix) from error
    if status is not None and 400 <= status < 500 and status not in (404, 409, 412, *LATER):
        raise PublishError(
            where, f"a refusal by the Hub ({_told(error)})", "a dataset that it accepts", UNCHANGED
        ) from error
    if isinstance(error, ValueError) and not isinstance(error, JSONDecodeError):
        raise PublishError(where, f"a refusal ({_told(error)})", "a dataset that the Hub accepts", UNCHANGED) from error


def _cause(error: Exception) -> Exception:
    """What lies behind a failed upload: the client wraps it."""
    inner = error.__cause__
    return _cause(inner) if isinstance(error, RuntimeError) and isinstance(inner, Exception) else error


def _asked(error: Exception | None) -> float:
    """Seconds that the Hub asks to wait."""
    if not isinstance(error, HfHubHTTPError):
        return 0.0
    stated, limit = error.response.headers.get("Retry-After", ""), parse_ratelimit_headers(error.response.headers)
    reset = limit.reset_in_seconds if limit is not None and limit.remaining == 0 else 0
    return min(max(float(stated) if stated.isdigit() else 0.0, reset), LONGEST)


def _told(error: Exception) -> str:
    """The error in one line; a Hub that repeats the token it was sent is not quoted."""
    message = error.server_message if isinstance(error, HfHubHTTPError) and error.server_message else str(error)
    status = f"{error.response.status_code}: " if isinstance(error, HfHubHTTPError) else ""
    message = TOKEN.sub(r"\1_…", " ".join(message.split()))
    return status + shown(message or type(error).__name__, 200)
