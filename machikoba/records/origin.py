"""Where an example comes from, which decides what may be done with it.

    file      uploaded: learnt from, or kept aside for the proof, as its hash says
    handoff   what a person made of a message that was left to them: harder than the traffic, so it is only ever learnt from
    audit     what a person made of a message that was drawn blind, before anybody knew what is said of it: like an upload
"""
from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

FILE, HANDOFF, AUDIT = "file", "handoff", "audit"


@dataclass(frozen=True)
class Given:
    """What a person made of a message at work. origin: HANDOFF or AUDIT; at: when."""

    text: str
    label: str
    origin: str
    at: datetime
