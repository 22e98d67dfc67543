"""What the benchmarks measure, without a command line."""
