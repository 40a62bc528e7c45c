"""`make demo` as a newcomer runs it: a fresh clone, nothing installed. Writes its output and its minutes.

    python bench/demo.py       a few minutes, most of it installation
"""
from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

from harness import ROOT, write_result


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "machikoba"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        bare = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "MACHIKOBA_HOME", "MAKEFLAGS")}
        bare["PATH"] = os.pathsep.join(p for p in bare["PATH"].split(os.pathsep) if not p.startswith(str(ROOT)))
        found = {}
        for language in ("en", "ja"):
            began = time.monotonic()
            done = subprocess.run(["make", "--no-print-directory", "demo"], cwd=clone, env=bare | {"MACHIKOBA_LANG": language},
                                  check=True, stdout=subprocess.PIPE, text=True)
            found[language] = {"seconds": round(time.monotonic() - began), "lines": _story(done.stdout)}
            print("\n".join(found[language]["lines"]), f"\n{found[language]['seconds']} s")
    write_result("demo", {"first_run_seconds": found["en"]["seconds"], "second_run_seconds": found["ja"]["seconds"],
                          "lines": found["en"]["lines"], "lines_ja": found["ja"]["lines"]})


def _story(output: str) -> list[str]:
    """From the line that says what was read; what the installation printed comes before."""
    lines = output.rstrip().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(("read ", "読込")))
    return lines[start:]


if __name__ == "__main__":
    main()
