"""Prove exactly once: hurt the dispatcher everywhere, let it heal, and count."""
