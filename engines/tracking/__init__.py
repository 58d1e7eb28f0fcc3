"""Tracking: gives the boxes of one object the same number in all frames of a media."""
