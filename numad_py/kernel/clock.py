"""Clocks. ``model`` and ``decide`` have none: "now" is a field of the snapshot."""

from __future__ import annotations

import time


def thread_cpu_s() -> float:
    """Return the CPU time of the calling thread, seconds (CLOCK_THREAD_CPUTIME_ID)."""
    return time.thread_time()


def monotonic_s() -> float:
    """Return a clock for durations, seconds (CLOCK_MONOTONIC)."""
    return time.monotonic()


def boottime_s() -> float:
    """Return the time since boot, seconds (CLOCK_BOOTTIME, as in /proc/uptime)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def unix_s() -> float:
    """Return wall-clock time, seconds since the epoch."""
    return time.time()
