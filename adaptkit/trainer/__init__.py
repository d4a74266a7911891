"""The one training loop, its objectives, checkpoints and metrics. Importing this package loads no torch."""
