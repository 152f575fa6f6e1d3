"""What the speed of this package is, measured: ``python -m benchmarks`` says what there is."""
