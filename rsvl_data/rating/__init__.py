"""Captions judged by people: a page to rate them on, and the table of ratings that comes back."""
