"""What a tuning run is asked to do; checked before anything is spent."""
from __future__ import annotations

import re
from dataclasses import dataclass

from machikoba.errors import OptionError
from machikoba.language import _
from machikoba.tasks import classify

DEFAULT_HOLDOUT = 0.3  # 0.2 certify and 0.1 test


@dataclass(frozen=True)
class Options:
    """Settings of a run, as on the command line. holdout: "auto", "none" or a share; budget_seconds: None is no limit."""

    text: str | None = None
    label: str | None = None
    sheet: str | None = None
    none_label: str | None = None
    never_automatic: tuple[str, ...] = ()
    bases: tuple[str, ...] = ()
    target_error: float = 0.05
    target_coverage: float = 0.8
    confidence: float = 0.95
    budget_seconds: float | None = None
    rungs: tuple[str, ...] = classify.DEFAULT_RUNGS
    holdout: str = "auto"
    require_certificate: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in (("target-error", self.target_error), ("target-coverage", self.target_coverage),
                            ("confidence", self.confidence)):
            if not 0 < value < 1:
                raise _wrong(name, _("a number between 0 and 1"), value)
        unknown = [rung for rung in self.rungs if rung not in classify.RUNGS]
        if unknown or not self.rungs:
            raise _wrong("rungs", ", ".join(classify.RUNGS), ", ".join(unknown))
        if self.holdout not in ("auto", "none") and not self._share():
            raise _wrong("holdout", _("auto, none, or a share such as 0.3 (at most 0.8)"), self.holdout)
        if self.seed < 0:
            raise _wrong("seed", _("a number from 0"), self.seed)

    def _share(self) -> float:
        try:
            share = float(self.holdout)
        except ValueError:
            return 0.0
        return share if 0 < share <= 0.8 else 0.0

    @property
    def holdout_share(self) -> float:
        """The share of groups kept from training: 0.3 under "auto" until it is decided."""
        return 0.0 if self.holdout == "none" else DEFAULT_HOLDOUT if self.holdout == "auto" else self._share()


def seconds(text: str) -> float:
    """"10m", "90s", "1h" or a number of seconds. Raises OptionError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if not found or not float(found[1]):
        raise _wrong("budget", _("a time such as 90s, 10m or 1h"), text)
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def _wrong(name: str, expected: str, found: object) -> OptionError:
    return OptionError("option_wrong", _("The value of --{name} cannot be used.").format(name=name), expected=expected,
                       found=str(found), next=_("`machikoba tune --help` lists the options."))
