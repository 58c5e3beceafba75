"""Networks and how to recognize them from their tensors."""
