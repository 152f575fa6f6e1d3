"""From masks to classes: embeddings, groups, names."""
