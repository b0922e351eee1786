"""Images and words in, clean image-text shards out."""
