"""What stands before the engines: keys, limits, routes, metrics."""
