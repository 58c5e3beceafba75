"""What drawn training pictures are made of; a file for each kind, and what they share."""
