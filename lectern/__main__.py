"""`python -m lectern` is the command `lectern`."""

from lectern.app import main

if __name__ == "__main__":  # child processes of a command import this file too
    main()
