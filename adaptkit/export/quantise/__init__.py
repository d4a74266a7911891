"""Weights in fewer bits, written in the compressed-tensors format."""
