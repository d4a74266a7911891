"""What lies beside the weights of an export: card, lineage, bill of materials, signature."""
