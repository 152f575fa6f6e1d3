"""Evaluation: COCO's AP and AR, comparisons of fields, the paper's benchmark sets."""
