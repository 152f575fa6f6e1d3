"""Exchange: export pseudo-labels to train detectors on, and import the detectors' predictions."""
