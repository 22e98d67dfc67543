"""The acceptance queries, as asset checks."""
