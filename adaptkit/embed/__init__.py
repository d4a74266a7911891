"""Embeddings: encoders trained by contrast, encoding of corpora, exact search, and the retrieval metrics that
judge them."""
