"""Write what is generated between its markers on every page: `python -m docs.generate`."""

from __future__ import annotations

import sys

from docs.generate.write import pages, written

changed = [page for page in pages() if written(page.read_text()) != page.read_text()]
for page in changed:
    page.write_text(written(page.read_text()))
sys.stdout.write("".join(f"{page} written\n" for page in changed) or "all pages are current\n")
