"""Plan -> Outcomes: affinity, mover, undo journal."""
