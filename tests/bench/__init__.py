"""Benchmarks: ratios of two things measured in one run, as a table and as JSON.

A subject is a module with ``rows()``, a generator that yields a Row as soon as it has measured it;
its name stands in ``SUBJECTS`` of ``__main__``. It repeats what it measures and hands every value
to a Figure: median and spread are the table's business. Where it cannot run it raises NotHere,
which is no failure; whatever else it raises is one, and the other subjects go on.
"""
