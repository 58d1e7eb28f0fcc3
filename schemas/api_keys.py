"""API keys: who may use the HTTP gateway, and for which tenant."""

from pydantic import BaseModel, ConfigDict, Field

from schemas.api_roles import ApiRole
from schemas.declared import Name, Sha256
from schemas.fields import Count, Moment


class ApiKey(BaseModel):
    """A key as the broker has it: of its secret only the SHA-256, which is enough for 256 random bits.

    At most `rate_per_s` requests a second at one gateway, and `upload_bytes` in one upload; 0: no limit of its own.
    `expires_s` and `revoked_s` are in seconds since 1970; 0: never.
    """

    model_config = ConfigDict(frozen=True)
    id: Name
    name: Name
    sha256: Sha256
    tenant: Name
    roles: tuple[ApiRole, ...]
    rate_per_s: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    upload_bytes: Count = 0
    created_s: Moment
    expires_s: Moment = 0.0
    revoked_s: Moment = 0.0

    def valid_at(self, now_s: float) -> bool:
        """Whether it may be used at that moment."""
        return not self.revoked_s and (not self.expires_s or now_s < self.expires_s)
