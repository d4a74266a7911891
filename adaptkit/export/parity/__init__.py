"""Proof that an export answers as the model that was trained does."""
