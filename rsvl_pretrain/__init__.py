"""A dual encoder and its training."""
