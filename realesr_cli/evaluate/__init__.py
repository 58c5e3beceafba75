"""Judging models: sets of images, tables of scores, pages and sheets to compare by eye."""
