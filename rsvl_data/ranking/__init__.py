"""Which of the candidate captions of an image are kept: by two CLIP models, and by how little a caption minds turning the image."""
