"""The command line: parsing, help, rendering. Everything heavy is imported inside the command that needs it."""
