"""Watch: what the pipeline does, and whether that is normal."""
