"""From weights back to the rows that made them: sources, digests, what was removed, and who read a text."""
