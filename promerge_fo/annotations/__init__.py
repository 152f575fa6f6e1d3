"""COCO annotations, without FiftyOne: JSON as a stream, RLE and boxes, and untrusted masks."""
