"""One module per benchmark: its options, and how its figures are shown."""
