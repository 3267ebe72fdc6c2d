#!/usr/bin/env bash
# DuckDB 2.0.1 and PyArrow 26.0.1 over a Parquet file with NaN weights.
#
# Good guess: a filter over a Parquet file selects the rows that it selects of the same table in
#   memory.
# Behaviour: Parquet writers leave NaN out of a row group's minimum and maximum, and both readers
#   skip row groups by these bounds, so a NaN row is seen or not by the rows beside it. DuckDB's
#   isnan() finds no NaN in the file at all; its "weight > 0.5" (NaN is greatest there) keeps the NaN
#   of one row group and loses that of another; PyArrow loses one in "not weight <= 0.5".
# Who meets it: whoever looks for NaN weights (a diverged weight learner leaves some) in a weighted
#   dataset before training on it, or cuts it by a threshold. The check says that it is clean.
# Output seen (rows 2 and 5 are NaN):
#   duckdb isnan(weight)          memory [2, 5]        file []
#   duckdb weight > 0.5           memory [2, 3, 4, 5]  file [3, 4, 5]
#   pyarrow not (weight <= 0.5)   memory [2, 3, 4, 5]  file [3, 4, 5]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q duckdb==2.0.1 pyarrow==26.0.1 numpy==2.4.6
venv/bin/python - <<'PY'
import sys

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

weights = [0.1, 0.2, float("nan"), 0.9, 0.8, float("nan")]
held = pa.table({"row": range(6), "weight": weights})
pq.write_table(held, "weights.parquet", row_group_size=3)


def duck(source, where):
    return [row for (row,) in duckdb.sql(f"select row from {source} where {where} order by row").fetchall()]


def arrow(source):
    return source.to_table(filter=~(ds.field("weight") <= 0.5))["row"].to_pylist()


seen = {
    f"duckdb {where}": (duck("held", where), duck("'weights.parquet'", where))
    for where in ("isnan(weight)", "weight > 0.5")
}
seen["pyarrow not (weight <= 0.5)"] = arrow(ds.dataset(held)), arrow(ds.dataset("weights.parquet"))
for what, (memory, file) in seen.items():
    print(f"{what:<30}memory {memory!s:<14}file {file}")
if list(seen.values()) != [([2, 5], []), *[([2, 3, 4, 5], [3, 4, 5])] * 2]:
    sys.exit("changed: NaN rows are pruned otherwise than this script says")
PY
