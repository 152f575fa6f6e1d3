"""Runs: give images masks, and keep a record of the settings and software that made them."""
