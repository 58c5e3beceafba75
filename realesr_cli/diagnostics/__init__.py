"""What is installed, what will be used, and how to fix problems."""
