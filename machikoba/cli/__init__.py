"""The command line: each command parses, calls one library function and prints."""
from __future__ import annotations

import sys

from machikoba.cli import doctor, people, privacy, safety, server  # noqa: F401  their commands are added to `app`
from machikoba.cli.app import app
from machikoba.cli.output import fail, interrupted


def main() -> None:
    """Entry point. Exit codes: 0 done, 1 a requirement is not met, 2 bad input, 130 stopped by the user."""
    from machikoba.errors import MachikobaError

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a Windows console may not be UTF-8; a name must not end the run
            stream.reconfigure(errors="replace")
    try:
        app(prog_name="machikoba")
    except MachikobaError as error:
        sys.exit(fail(error))
    except KeyboardInterrupt:
        sys.exit(interrupted())
