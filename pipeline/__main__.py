"""`python -m pipeline` is the command `lectern`."""

from pipeline.cli import main

main()
