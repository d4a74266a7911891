"""vLLM processes: their command, their supervision, the adapters they serve."""
