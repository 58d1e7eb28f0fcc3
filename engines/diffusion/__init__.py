"""Pictures from words by Stable Diffusion: schedules of noise, samplers, prompts as tokens, and the networks' work."""
