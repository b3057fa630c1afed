"""Kernel readings -> Snapshot."""
