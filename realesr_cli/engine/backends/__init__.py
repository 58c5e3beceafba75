"""What computes a tile: one file per backend behind one protocol."""
