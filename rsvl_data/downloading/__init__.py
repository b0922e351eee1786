"""Tables of URLs to images on the disk: what is asked, of whom, and how much of an answer is believed."""
