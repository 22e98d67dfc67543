"""Prove: that pieces equal the whole, and that nothing looks ahead."""
