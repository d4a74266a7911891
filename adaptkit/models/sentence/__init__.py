"""Sentence-transformers folders: how a model says which way it turns a text into a vector.

`layout` reads and writes what is said, `pooling` and `dense` compute it, `pooling_files` copies it to
another folder.
"""
