"""Remember: the only floor that knows SQL."""
