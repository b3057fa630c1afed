"""Machines that live for weeks within seconds."""
