"""Say whether a model still answers as it did when it was exported: by any engine, in any later version."""
