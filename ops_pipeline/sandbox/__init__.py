"""A generated market, for demos and for round-the-clock runs."""
