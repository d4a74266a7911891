"""Rows that a generator writes from text: asked for, filtered, and kept apart from real ones."""
