"""A library: a folder of results of the format embeddings, as one collection of vectors that can be searched."""
