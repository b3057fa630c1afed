"""``make demo``: the main job on real input, to be looked at."""
