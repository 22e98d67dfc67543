"""What this project adds to Dagster itself; it knows nothing of the pipeline."""
