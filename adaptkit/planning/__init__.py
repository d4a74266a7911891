"""Plan a model before it is trained: sizes, tokens, hours, dollars and memory, also of serving it."""
