"""Where things are kept and what an hour costs: defaults, overridden by HOME/settings.toml, then by the environment.

MACHIKOBA_HOME      folder of bundles, converted bases and settings (default: the user's data directory)
MACHIKOBA_LANG      "ja" or "en" (default: the locale)
MACHIKOBA_THREADS   threads for the model (default: measured)
MACHIKOBA_DATABASE  URL of the store (default: SQLite in the home)
"""
from __future__ import annotations

import os
import sys
import tomllib
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from machikoba.errors import OptionError
from machikoba.files import private_folder
from machikoba.language import _


@dataclass(frozen=True)
class Prices:
    """Assumptions behind every yen; `[prices]` in settings.toml replaces any of them.

    yen_per_kwh: the guide price of Japan's appliance industry (全国家庭電気製品公正取引協議会, 31 yen since 2022).
    watts: an office desktop at work. machine_yen_per_hour: 150,000 yen over 5 years of 2,000 hours.
    """

    yen_per_kwh: float = 31.0
    watts: float = 65.0
    machine_yen_per_hour: float = 15.0

    def yen(self, seconds: float) -> float:
        """Electricity and machine for `seconds` of wall-clock time."""
        hours = seconds / 3600
        return hours * (self.watts / 1000 * self.yen_per_kwh + self.machine_yen_per_hour)

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def home() -> Path:
    """MACHIKOBA_HOME, else the user's data directory; not created here."""
    if named := os.environ.get("MACHIKOBA_HOME"):
        return Path(named).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", str(Path.home()))) / "machikoba"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "machikoba"
    return Path(os.environ.get("XDG_DATA_HOME", str(Path.home() / ".local" / "share"))) / "machikoba"


def made_home() -> Path:
    """`home`, made where it is not there yet; customers' messages lie in it, so it is its user's alone. Raises StorageError."""
    return private_folder(home())


def prices() -> Prices:
    """The price assumptions in force. Raises OptionError for a settings file that cannot be used."""
    path = home() / "settings.toml"
    if not path.exists():
        return Prices()
    known = {field.name for field in fields(Prices)}
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8")).get("prices", {})
        unknown = set(values) - known
        if unknown or any(not isinstance(v, int | float) or v < 0 for v in values.values()):
            raise ValueError(", ".join(sorted(unknown)) or str(values))
    except (ValueError, OSError) as error:
        raise OptionError(
            "settings_unreadable", _("The settings in {file} cannot be used.").format(file=path),
            expected=_("[prices] with numbers for: {names}").format(names=", ".join(sorted(known))),
            found=str(error), next=_("Correct the file or delete it; the defaults then apply.")) from error
    return Prices(**{name: float(value) for name, value in values.items()})
