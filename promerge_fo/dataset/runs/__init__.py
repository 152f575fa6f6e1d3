"""Runs: images get masks, and what made them is on record."""
