"""PyAV: split, decode, encode, mux."""
