"""`python -m pipeline` is the command `lectern`."""

from pipeline.cli import main

if __name__ == "__main__":  # a process that the command starts may import this file too
    main()
