"""Benchmarks of the pipeline, which need no FiftyOne."""
