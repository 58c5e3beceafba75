"""How good an image is: with and without a reference."""
