"""Tests of numad-py."""
