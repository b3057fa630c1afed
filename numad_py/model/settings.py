"""What became of kernel settings that numad-py may change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

KINDS = ("numa_balancing", "huge_pages")
"""Label values of a metric."""


@dataclass(frozen=True)
class SettingsTold:
    """Settings by name, as the doer has them."""

    changed: Mapping[str, str] = field(default_factory=dict)
    """What numad-py has set and will give back, in words."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """Why a setting that the policy asks for could not be changed, and what to do."""
    failures: Mapping[str, int] = field(default_factory=dict)
    """How often changing one or giving it back has failed since the start, by kind."""
