"""From a model's name to a file to a network."""
