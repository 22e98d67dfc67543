"""Benchmarks: the pipeline's cost here, beside a peer or the naive way in the same run."""
