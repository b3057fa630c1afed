"""Places all workers of a machine together: Problem in, Solution out; nothing else counts.

What is wanted, the first before all that follow:

1. the fewest bytes without a home (memory is a hard limit; a home is never too small);
2. the fewest pairs of one group on homes that overlap;
3. the fewest CPUs wanted beyond what there is, in steps;
4. the least cost: remote bytes, devices, what has to be moved, and homes left for others.

Candidates are weighed once (``candidates``). Where each can have its cheapest, that is the answer,
and known to be the best: the usual case. Otherwise a search finds a good one (``search``), a second
one the best where there are few items (``exact``), and an order is sought in which the moves can be
made (``order``).
"""
