"""Distillation: a small student that keeps what a larger teacher knows. Importing this package loads no
torch."""
