"""Networks and how to recognise them from their tensors."""
