#!/usr/bin/env bash
# PyArrow 26.0.1, pyarrow.parquet with read_dictionary, over texts that DuckDB 2.0.1 wrote as Parquet V2.
#
# Good guess: read_dictionary is a wish about the result, which any Parquet file of texts can serve.
# Behaviour: it cannot be served where the texts have a delta encoding (DELTA_LENGTH_BYTE_ARRAY,
#   DELTA_BYTE_ARRAY): reading raises, as if the file were damaged. DuckDB writes such texts when it
#   is asked for PARQUET_VERSION V2 and a dictionary does not pay.
# Who meets it: whoever reads with read_dictionary to bound memory, as readers of foreign files do.
# Output seen:
#   encodings of the file              contain DELTA_LENGTH_BYTE_ARRAY
#   read as it is                      1000 rows
#   read with read_dictionary          raises
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q duckdb==2.0.1 pyarrow==26.0.1
venv/bin/python - <<'PY'
import sys

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

duckdb.sql("copy (select md5(i::varchar) as text from range(1000) t(i)) to 'a.parquet' (parquet_version v2)")
encodings = pq.ParquetFile("a.parquet").metadata.row_group(0).column(0).encodings
plain = len(pq.read_table("a.parquet"))
try:
    found = f"{len(pq.read_table('a.parquet', read_dictionary=['text']))} rows"
except (pa.ArrowException, OSError):
    found = "raises"
print(f"encodings of the file              {encodings}")
print(f"read as it is                      {plain} rows")
print(f"read with read_dictionary          {found}")
if "DELTA_LENGTH_BYTE_ARRAY" not in encodings or plain != 1000 or found != "raises":
    sys.exit("changed: reading is otherwise than this script says")
PY
