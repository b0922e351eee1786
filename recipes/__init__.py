"""One file, one run: `rsvl run` lists them."""
