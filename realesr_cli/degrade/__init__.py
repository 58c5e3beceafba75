"""The synthetic degradation: settings, sampled recipes, and their deterministic application."""
