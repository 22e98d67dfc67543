"""The embedded server and the processes of one machine."""
