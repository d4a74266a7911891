"""The comparison: one study, many arms, one budget, one verdict."""
