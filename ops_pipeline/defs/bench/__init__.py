"""Measurements of what Dagster and its assets cost."""
