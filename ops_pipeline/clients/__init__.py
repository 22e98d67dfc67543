"""Reach out: one module for each outside system."""
