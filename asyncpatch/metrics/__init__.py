"""Distances and scores of generated images."""
