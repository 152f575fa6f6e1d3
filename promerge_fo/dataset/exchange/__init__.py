"""Exchange: pseudo-labels for detectors, and their predictions back."""
