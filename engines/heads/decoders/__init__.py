"""Decoders: how detectors write boxes, one file each, found by name; see `engines.heads.decoders.base`."""
