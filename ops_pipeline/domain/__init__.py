"""Decide: pure rules, no clock, no I/O."""
