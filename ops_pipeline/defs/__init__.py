"""Declare: the pipeline as Dagster sees it."""
