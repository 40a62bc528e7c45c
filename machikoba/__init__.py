"""machikoba: finish an open AI model for one local job, on the PC you already have.

    import machikoba

    result = machikoba.tune("inquiries.xlsx")
    service = machikoba.load(result.path)
    service.predict(["明日の宿泊をキャンセルしたいです"])
"""
from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

__version__ = version("machikoba")
__all__ = ["__version__", "load", "tune"]

from machikoba import tune  # a package that can be called

if TYPE_CHECKING:
    from machikoba.engine.runtime import Service


def load(bundle: str | Path) -> Service:
    """The bundle (a path, or the name of one in the home), ready to `predict(texts)`.

    Raises `machikoba.errors.BundleError` when it is damaged and `BaseError` when its base is not here.
    """
    from machikoba.engine.runtime import Engine
    from machikoba.pack.bundle import find_bundle
    from machikoba.settings import made_home

    home = made_home()
    return Engine(home).load(find_bundle(str(bundle), home))
