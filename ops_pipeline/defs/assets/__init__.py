"""The six data stages and the executions, as assets."""
