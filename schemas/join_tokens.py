"""Join tokens: how a new machine gets what a rig of the fleet needs, once."""

import time

from pydantic import BaseModel, ConfigDict

from schemas.declared import Name
from schemas.fields import GivenName, Moment


class JoinToken(BaseModel):
    """A token as the broker has it. `box` is what the machine gets, encrypted with a key that only the token has.

    Moments are in seconds since 1970; 0: never. A token that was used or revoked has an empty box.
    """

    model_config = ConfigDict(frozen=True)
    id: Name
    name: Name
    box: str
    created_s: Moment
    expires_s: Moment
    used_s: Moment = 0.0
    used_by: GivenName = ""
    revoked_s: Moment = 0.0

    def why_not(self, now_s: float) -> str:
        """Why it cannot be used at that moment, in words; empty if it can."""
        if self.used_s:
            return f"was used by {self.used_by or 'another machine'} on {moment(self.used_s)}"
        if self.revoked_s:
            return f"was revoked on {moment(self.revoked_s)}"
        return f"expired on {moment(self.expires_s)}" if now_s >= self.expires_s else ""


class RigAccess(BaseModel):
    """What is in the box: the seed of the role worker, the settings that go with it, and the CA's certificates."""

    model_config = ConfigDict(frozen=True)
    seed: str = ""
    inbox: str
    prefix: str
    tls_ca: str = ""


def moment(at_s: float) -> str:
    """A moment for people, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at_s))
