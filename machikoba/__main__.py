"""`python -m machikoba` is the command `machikoba`."""
from machikoba.cli import main

main()
