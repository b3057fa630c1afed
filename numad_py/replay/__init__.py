"""Recordings and described machines, run through a policy on a simulated kernel."""
