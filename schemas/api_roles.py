"""What an API key allows. Apart from the key itself, so that `rigflow --help` imports no pydantic."""

from enum import StrEnum


class ApiRole(StrEnum):
    """What a key allows; one role does not include another."""

    SUBMIT = "submit"  # begin jobs, and cancel them
    READ = "read"  # see jobs and their results
    OPERATE = "operate"  # change models, dead letters and workers, and see other tenants' counts
