"""Whose access tokens are believed: the built-in issuer, and others that the configuration names."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AnyUrl, BaseModel, ConfigDict, Field, UrlConstraints

from authz.jwks import Keys

HttpsUrl = Annotated[AnyUrl, UrlConstraints(allowed_schemes=["https"])]


class OutsideIssuer(BaseModel):
    """One entry of OUTSIDE_ISSUERS: an identity provider beside the built-in one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: Annotated[str, Field(min_length=1)]
    """The `iss` of its tokens, exactly."""
    jwks_url: HttpsUrl
    audience: Annotated[str, Field(min_length=1)]
    jwks_ca: Path | None = None
    """Whom its certificate must come from (PEM), where that is not one of the system's CAs."""
    user_claim: str = "sub"
    """The claim that has the user's id."""
    roles_claim: str = "roles"
    """The claim that has a list of roles."""
    roles: Mapping[str, str] = Field(default_factory=dict)
    """Our roles by theirs; others of theirs mean nothing."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """One issuer, as far as its tokens are concerned."""

    name: str
    audience: str
    keys: Keys
    user_claim: str = "sub"
    roles_claim: str = "roles"
    roles: Mapping[str, str] | None = None
    """Our roles by theirs; None for the built-in issuer, whose roles and sessions are ours."""

    @property
    def is_outside(self) -> bool:
        """Whether somebody else runs it."""
        return self.roles is not None

    def ours(self, roles: Collection[Any]) -> frozenset[Any]:
        """Returns what roles in its tokens are here."""
        if self.roles is None:
            return frozenset(roles)
        return frozenset(self.roles[role] for role in roles if role in self.roles)
