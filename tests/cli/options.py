"""Options of commands that make them quick."""

SMALL = ["--image-size", "160"]
TEXTURE = ["--encoder", "texture", "--num-workers", "2", *SMALL]
