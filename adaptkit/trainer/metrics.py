"""What a trained model is measured by: bits per byte, the same function that an export is measured with."""

from adaptkit.models.bits_per_byte import bits_per_byte, score_documents

__all__ = ["bits_per_byte", "score_documents"]
