"""Sentence-transformers folders: the files by which a model says how it turns text into a vector."""
