"""The control plane and runtime of multi-tenant platforms."""
