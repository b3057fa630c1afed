"""How many examples: few in each run, many with ``NUMAD_PY_HYPOTHESIS=thorough``."""

from __future__ import annotations

import os

from hypothesis import settings

# No deadlines: a busy machine is no defect.
settings.register_profile("quick", max_examples=40, deadline=None)
settings.register_profile("thorough", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("NUMAD_PY_HYPOTHESIS", "quick"))
