"""Declare: the pipeline as Dagster sees it."""

import warnings

from dagster import BetaWarning

# Single-run backfills are marked beta; range runs are made of them.
warnings.filterwarnings("ignore", "Parameter `backfill_policy`", BetaWarning)
