"""`python -m ops_pipeline` is the command line."""

from ops_pipeline.cli import main

main()
