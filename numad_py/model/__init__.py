"""Frozen values that the rooms hand to each other.

Nothing here opens a file, reads a clock or logs. Units stand in the field names; ``None`` means
that something could not be read, never zero.
"""
