"""`tenantry.toml` as a frozen `Config`, and every fault in it with its line, its value and what to do."""

from tenantry.config.faults import Fault, faults, load
from tenantry.config.models import Blueprint, Config, Frozen, ResourceSpec, Seconds
from tenantry.config.sources import FILE, secret_keys

__all__ = ["FILE", "Blueprint", "Config", "Fault", "Frozen", "ResourceSpec", "Seconds", "faults", "load", "secret_keys"]
