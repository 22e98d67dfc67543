"""A news-to-order pipeline for paper trading, run and watched with Dagster."""

__version__ = "0.1.0"
