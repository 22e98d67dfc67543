"""Prove: that an exported, or a smaller, model says what the model itself says."""
