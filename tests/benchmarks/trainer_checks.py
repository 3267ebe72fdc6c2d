"""What reaches the gradient of the real trainers: `python tests/benchmarks/trainer_checks.py`, after `make test-trainers`."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.trainers.test_trainers import VERDICTS, python

RESULT = Path(__file__).parent / "results" / "trainers.json"
LINE = re.compile(r"(\S+(?: to \S+)?) of the expected change; (\S+) % in other directions")


def checked(name: str) -> dict[str, str]:
    """One verdict, as `curate check-trainer` prints it."""
    printed = python(VERDICTS[name][0], "-m", "curate", "check-trainer", name).stdout
    [(kind, trainer)] = re.findall(rf"^{name}: weights (\w+), (.+)$", printed, re.MULTILINE)
    [(moved, astray)] = LINE.findall(printed)
    return {"name": name, "trainer": trainer, "verdict": kind, "moved": moved, "astray": astray}


if __name__ == "__main__":
    found = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "checks": [checked(name) for name in VERDICTS]}
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
