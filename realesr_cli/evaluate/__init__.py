"""Judging models: sets of pictures, tables of scores, pages and sheets to compare by eye."""
