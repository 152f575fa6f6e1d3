"""COCO's annotations, without FiftyOne: JSON as a stream, RLE and boxes, masks from outside."""
