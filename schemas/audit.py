"""What an entry of the audit log says."""

from pydantic import BaseModel, ConfigDict


class AuditEntry(BaseModel):
    """Who did what. The broker stores when, and in the subject the role and `action`, which its permissions hold.

    `target` is what was changed, `facts` are details. The rest is what the process says of itself: the public key of
    its login, its machine and the user there; a gateway also says whose API key and tenant asked.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    action: str
    target: str
    facts: dict[str, str] = {}
    login: str = ""
    machine: str = ""
    user: str = ""
    api_key: str = ""
    tenant: str = ""
