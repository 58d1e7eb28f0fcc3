"""The page of the gateway in a browser: `make test-page`."""
