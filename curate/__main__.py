"""`python -m curate` is the same as `curate`."""

from curate.cli.main import main

main()
