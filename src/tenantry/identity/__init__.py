"""The people who run the platform: who is asking, what they may do, and how they prove who they are."""

from __future__ import annotations

from tenantry.identity.principal import Principal, acting_as, current_principal, sees_only
from tenantry.identity.rights import RIGHTS, Reach, Right, verb

__all__ = ["RIGHTS", "Principal", "Reach", "Right", "acting_as", "current_principal", "sees_only", "verb"]
