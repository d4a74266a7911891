"""What a request passes before it reaches vLLM: key, limits, routes and metrics."""
