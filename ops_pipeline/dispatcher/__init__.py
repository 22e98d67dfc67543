"""Act: take recommendations through the gates, exactly once."""
