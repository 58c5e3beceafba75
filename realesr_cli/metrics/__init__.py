"""How good a picture is: with and without a reference."""
