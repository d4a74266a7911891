"""Serve models with vLLM behind a guard, restart what dies, and measure speed and cost."""
