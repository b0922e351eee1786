"""Segmentation guided by text."""
