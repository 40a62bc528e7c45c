"""From file to bundle. `machikoba.tune(...)` is this package called, so that the flow keeps its one name."""
from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from machikoba.tune.run import Result


class _Tune(ModuleType):
    def __call__(self, data: str | Path, out: str | Path | None = None, resume: bool = False, **options: Any) -> Result:
        """Makes a tested bundle from a file of labelled messages.

        data: .xlsx, .csv or .jsonl. out: the bundle's own path. resume: goes on with a run that was
        interrupted. options: fields of `machikoba.tune.options.Options`,
        such as target_error=0.05, none_label="その他", bases=("all-minilm-l6-v2",). Raises MachikobaError.
        """
        from machikoba.tune.options import Options
        from machikoba.tune.run import tune

        return tune(data, Options(**options), out, resume=resume)


sys.modules[__name__].__class__ = _Tune
