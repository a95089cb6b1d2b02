"""The command line: one small file a command. Parse, call, print; heavy imports stay inside the commands."""
