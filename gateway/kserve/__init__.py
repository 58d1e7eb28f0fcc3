"""KServe v2, as NVIDIA's Triton and its clients speak it: raw inference over HTTP, `/v2`."""
