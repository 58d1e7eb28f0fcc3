"""Measures what a device can do, in a bounded time: its profile (`schemas.device_profile`)."""
