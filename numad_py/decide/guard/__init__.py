"""Guards: a worker's own latency before and after a move decides whether the move stays.

``decide`` says what it would do without them; what they say in its place:

===============================================  ======  ================
its move is being taken back, and was broken     wait    guarding
off since memory was short
its move is being judged, no full window yet     wait    guarding
it was found to be worse, but paused             wait    paused
it was found to be worse                         act     guard-undo
a move of it was taken back within the pause     wait    guard-pause
to be acted on, but one of the same rule is      wait    guarding
being moved or judged
to be acted on, and no full window of before,    wait    guarding
for up to two windows
===============================================  ======  ================

The last two hold for who would move at once without: where it has to wait for room, or would be
refused for lack of it, that is said (``decisions``).

A worker that was found to be not worse, or of which nothing can be told, goes on as without. One
whose rule names no guard is none of this package's business.

Whoever is judged or taken back keeps its fellows from moving, so that has an end whatever becomes
of it. Its user binds its memory: at once. It cannot be read, is left no node, or memory stays
short: after as long as a move is judged at most, and what has not gone back by then stays.
"""
