"""Inference sessions: one protocol for every backend."""
