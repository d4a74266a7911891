"""vLLM as a child process: its command, its adapters, its failures, and who watches it."""
