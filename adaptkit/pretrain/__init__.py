"""Pretraining: a model of one's own from scratch, or a base that keeps learning. Importing this package loads
no torch."""
