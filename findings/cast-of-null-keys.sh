#!/usr/bin/env bash
# PyArrow 26.0.1, Table.cast(schema) of a column of lists of objects with a key that is null in every row.
#
# Good guess: casting a table to the very schema that it has gives the table.
# Behaviour: where the objects of such lists are more than the rows, the cast raises: it makes the
#   null key as long as the table and not as the objects. With one object a row it passes, so small
#   examples do; a table of other columns is not affected.
# Who meets it: whoever brings chat data to one schema while reading, where `tool_calls` is null in
#   every turn of a file, as `datasets` and trainers do with this cast.
# Output seen (five rows):
#   one turn a row     cast: equal
#   two turns a row    cast: ArrowInvalid, a struct child shorter than the structs (5 < 10)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q pyarrow==26.0.1
venv/bin/python - <<'PY'
import sys

import pyarrow as pa

turn = {"role": "user", "content": "a", "tool_calls": None}
seen = {}
for name, turns in (("one turn a row", 1), ("two turns a row", 2)):
    table = pa.table({"messages": [[turn] * turns] * 5})
    table.validate(full=True)
    try:
        seen[name] = "equal" if table.cast(table.schema) == table else "different"
    except pa.ArrowInvalid as error:
        seen[name] = "ArrowInvalid" if "5 < 10" in str(error) else str(error)
    print(f"{name:<19}cast: {seen[name]}")
if list(seen.values()) != ["equal", "ArrowInvalid"]:
    sys.exit("changed: the casts are others than this script says")
PY
