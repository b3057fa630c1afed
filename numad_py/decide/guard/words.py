"""What guards say, as sentences for people."""

from __future__ import annotations

from numad_py.model.guard import Measured
from numad_py.model.plan import MemoryMove
from numad_py.model.quantity import format_bytes
from numad_py.policy.schema import GuardPolicy

BROUGHT_BACK = "its memory was brought back there, since its latency had become worse elsewhere"

MEMORY_SHORT = "memory stayed short"
NOT_ACTING = "nothing is done any more, since the mode is not act"


def figure(measured: Measured) -> str:
    """Say what was measured in a window."""
    if not measured.observations:
        return f"without any observation over {measured.seconds:.0f} s"
    beyond = "above " if measured.beyond else ""
    return (
        f"{beyond}{measured.value:.4g} over {measured.seconds:.0f} s "
        f"({measured.observations:.0f} observations)"
    )


def fellow(label: str) -> str:
    """Say that another of the same endpoint is moved or watched."""
    return (
        f"to be moved, but {label}, which has the same guard, is moved or watched now: "
        "one at a time, so that it can be told whose move made a difference"
    )


def waiting(policy: GuardPolicy, measured: Measured | None, problem: str | None) -> str:
    """Say what is lacking before a move."""
    if problem is not None:
        return f"its guard cannot be read: {problem}"
    if measured is None:
        return f"there is no full window of {policy.metric} yet"
    return f"too few observations to go by: {measured.what} is {figure(measured)}"


def before_move(policy: GuardPolicy, lacking: str, left_s: float) -> str:
    """Say that it waits for a window."""
    return (
        f"to be moved, after {policy.window_s:.0f} s in which its guard is measured; {lacking}; "
        f"in {max(0.0, left_s):.0f} s it goes ahead without"
    )


def compared_later(before: Measured) -> str:
    """Say that a move will be judged."""
    return f"{before.what} is {figure(before)}, and is compared with that of afterwards"


def unguarded(lacking: str) -> str:
    """Say that a move goes ahead and cannot be judged."""
    return f"not guarded: {lacking}"


def watching(before: Measured, after: Measured | None, policy: GuardPolicy, since_s: float) -> str:
    """Say that a move is being judged."""
    now = "nothing was read yet" if after is None else f"since then it is {figure(after)}"
    return (
        f"moved {since_s:.0f} s ago; {before.what} was {figure(before)} before, {now}; "
        f"a full window of {policy.window_s:.0f} s is to tell whether the move stays"
    )


def change(before: Measured, after: Measured, policy: GuardPolicy) -> str:
    """Say how before and after compare."""
    by = after.value / before.value - 1 if before.value > 0 else 0.0
    how = f"{abs(by):.0%} {'worse' if by > 0 else 'better'}" if abs(by) >= 0.005 else "the same"  # noqa: PLR2004 - rounds to 0 %
    return (
        f"{before.what} was {figure(before)} before the move and is {figure(after)} after it: "
        f"{how}, where {policy.worse:.0%} worse is too much"
    )


def not_comparable(before: Measured, after: Measured) -> str:
    """Say that nothing can be told, and why."""
    if before.what != after.what:
        return f"the policy has changed: {before.what} cannot be compared with {after.what}"
    if before.beyond:
        why = "above the last bucket, so that nothing can be told"
    elif not after.enough:
        why = "too few observations to compare"
    else:
        why = "nothing to compare with"
    return (
        f"{before.what} was {figure(before)} before the move and is {figure(after)} after it: {why}"
    )


def bound_since(before: Measured) -> str:
    """Say that there is nothing to judge any more."""
    return (
        f"{before.what} was {figure(before)} before the move, and is compared no longer: "
        "its user has placed its memory since"
    )


def not_taken_back(why: str, since_s: float, hindrance: str) -> str:
    """Say that a move should have been taken back."""
    return f"{why}; it could not be taken back for {since_s:.0f} s: {hindrance}"


def no_reading(before: Measured, problem: str | None) -> str:
    """Say that the endpoint went silent."""
    return (
        f"{before.what} was {figure(before)} before the move, and could not be read after it: "
        f"{problem or 'the endpoint gave nothing'}"
    )


def stays(why: str) -> str:
    """Say that a move is kept."""
    return f"{why}; the move stays"


def undo(why: str, moves: tuple[MemoryMove, ...], short_bytes: int) -> str:
    """Say what is done to take a move back."""
    does = [
        f"moving {format_bytes(m.move_bytes)} back from node {m.source} to node {m.target}"
        for m in moves
    ]
    if short_bytes:
        does.append(f"leaving {format_bytes(short_bytes)}, for which there is no room any more")
    return f"{why}; taken back: {', '.join((*does, 'giving the threads their own masks back'))}"


def undo_paused(why: str) -> str:
    """Say that it would be taken back."""
    return f"{why}; to be taken back, but paused (numad-py resume)"


def broken_off(left_s: float) -> str:
    """Say that taking back goes on later."""
    return (
        "taking its move back was broken off since memory was short; "
        f"it goes on in {max(0.0, left_s):.0f} s"
    )


def given_up(since_s: float = 0.0, hindrance: str = "") -> str:
    """Say that no more goes back."""
    after = f" after {since_s:.0f} s" if since_s else ""
    why = f": {hindrance}" if hindrance else ""
    return f"taking its move back is given up{after}{why}; the rest of it stays"


def pause(undone: int, left_s: float) -> str:
    """Say how long it is left alone."""
    times = "once" if undone == 1 else f"{undone} times in a row"
    return (
        f"its move was taken back {times}, since its latency became worse; "
        f"it is not moved for another {_long(left_s)}"
    )


def _long(seconds: float) -> str:
    if seconds < 120:  # noqa: PLR2004 - then in seconds
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"  # noqa: PLR2004
