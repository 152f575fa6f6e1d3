"""Experiments on images with ground truth: ablations, tuning, and the paper's tables."""
