"""Evaluation of models: image sets, tables of scores, comparison pages and sheets."""
