"""`python -m curate` is the same as `curate`."""

from curate.cli import main

main()
