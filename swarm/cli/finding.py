"""What the doctor finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was looked at, what is there, and what to do when that is not well."""

    subject: str
    text: str
    level: str = "ok"  # ok, away (a device that is switched off), warning (it works, less well), problem (it does not)
    advice: str = ""
