"""Image files to RGB arrays: one orientation, one colour space, one bit depth, clear errors."""
