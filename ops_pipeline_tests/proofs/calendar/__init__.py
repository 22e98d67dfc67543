"""Years of a healthy pipeline, minute by minute, and outages in them: what the checks say."""
