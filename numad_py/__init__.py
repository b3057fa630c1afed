"""numad-py keeps inference workers, their memory and their threads on the same NUMA nodes.

The house, and the one way data flows::

    kernel -> observe -> decide -> act -> serve

    model    frozen values that the rooms hand to each other
    policy   TOML files -> one frozen Policy
    kernel   the only room that opens /proc, /sys or cgroupfs, or makes a system call
    observe  kernel readings -> Snapshot
    decide   (Snapshot, Policy, DecisionState) -> findings -> Plan; pure
    act      Plan -> Outcomes: affinity, mover, undo journal
    serve    what people and machines see: metrics, control socket, status, logs, sd_notify
    replay   recordings and described machines through a policy on a simulated kernel
    cli      one module per group of verbs: parse, call, print
    cycle    look at all, decide, look closely where a decision hangs on it, decide again
    advisor  advice for processes to come, and what is reserved for them
    commands what clients of the daemon ask for, told at once or done between two cycles
    events   what happens between two cycles, and the mailbox that it comes into
    daemon   the cycle: observe, decide, act, remember, publish
    compose  composition root: builds the rooms, starts what runs beside the cycle

``model`` and ``decide`` import neither os, time, pathlib nor logging, nor ``kernel`` or ``serve``:
"now" is a field of the snapshot, and what is remembered comes in as a DecisionState and leaves as
the next one. A dry run swaps the actuator. ``tests/unit/test_house.py`` holds this.
"""

__version__ = "0.1.0"
