"""What the clerk has said so far: labels may be new, renamed, merged, split and taken back at any time.

Nothing here is changed in place: each step gives new answers, so that whoever learns in the background keeps what it began with.
"""
from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from machikoba.records.clean import canonical_labels

SKIPPED, NOTHING = -2, -1  # "I cannot say" and "fits no label"; labels count from 0


@dataclass(frozen=True)
class Answers:
    """given: the answer to each message, by the message's id, in the order of answering. names: of each label that there is.

    became: which label each merged one went into. made: how many labels there ever were, so that no number is used twice.
    """

    given: Mapping[str, int] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)
    became: Mapping[int, int] = field(default_factory=dict)
    made: int = 0

    def add(self, name: str) -> tuple[Answers, int]:
        """With a new label, and its number. Raises ValueError for an empty name or one that is there, in any spelling."""
        self._check(name)
        return replace(self, names={**self.names, self.made: name.strip()}, made=self.made + 1), self.made

    def answer(self, message: str, label: int) -> Answers:
        """The message has this label (or NOTHING, or SKIPPED); a second answer to a message takes the first one's place.

        Raises KeyError for a label that was never made.
        """
        label = label if label in (NOTHING, SKIPPED) else self.current(label)
        return replace(self, given={**{m: other for m, other in self.given.items() if m != message}, message: label})

    def withdraw(self, message: str) -> Answers:
        """As if the message had not been asked; its label stays, if only as a name."""
        return replace(self, given={m: label for m, label in self.given.items() if m != message})

    def rename(self, label: int, name: str) -> Answers:
        """The same label under another name. Raises ValueError as `add` does, KeyError for a label that is not there."""
        label = self.current(label)
        self._check(name, label)
        return replace(self, names={**self.names, label: name.strip()})

    def merge(self, label: int, into: int) -> Answers:
        """All that had `label` has `into`. Raises KeyError for labels that are not there, ValueError for one with itself."""
        label, into = self.current(label), self.current(into)
        if label == into:
            raise ValueError("a label cannot be merged with itself")
        return replace(self, given={m: into if other == label else other for m, other in self.given.items()},
                       names={other: name for other, name in self.names.items() if other != label},
                       became={**self.became, label: into})

    def split(self, label: int, messages: Collection[str], name: str) -> tuple[Answers, int]:
        """Those of `messages` that have `label` get a new one, whose number is given too. Raises as `add` and `rename` do, and
        ValueError where the new label would have no message or the old one none left."""
        label = self.current(label)
        having, moved = {m for m, other in self.given.items() if other == label}, set(messages)
        if not having & moved or having <= moved:
            raise ValueError(f"some of the {len(having)} messages must move and some stay, found {len(having & moved)} that move")
        made, new = self.add(name)
        return replace(made, given={m: new if m in having & moved else other for m, other in made.given.items()}), new

    def current(self, label: int) -> int:
        """The label that `label` is now part of. Raises KeyError for one that was never made."""
        while label in self.became:
            label = self.became[label]
        if label not in self.names:
            raise KeyError(label)
        return label

    def _check(self, name: str, but: int | None = None) -> None:
        """No empty name, none that differs from another label's by width, case or space only."""
        if not name.strip():
            raise ValueError("a label needs a name")
        for label, other in self.names.items():
            if label != but and len(set(canonical_labels([name.strip(), other])[0])) == 1:
                raise ValueError(f"the label {other!r} is there already")
