"""Evaluation: COCO's AP and AR, comparisons of fields, and the paper's benchmark datasets."""
