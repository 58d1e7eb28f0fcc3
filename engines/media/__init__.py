"""Splits, decodes, encodes and muxes media by PyAV."""
