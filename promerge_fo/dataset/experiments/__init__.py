"""Experiments: settings tried on images with ground truth, tuned, and the paper's tables."""
