"""Training pictures before any training: checked for what spoils it, and prepared."""
