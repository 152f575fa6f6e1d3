"""Benchmarks of what needs FiftyOne and its database server."""
