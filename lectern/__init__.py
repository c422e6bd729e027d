"""The command line of Lectern: one module per panel of `lectern --help`."""
