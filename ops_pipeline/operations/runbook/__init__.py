"""The runbook as software: each section looks for its causes, fixes them, and verifies itself."""
