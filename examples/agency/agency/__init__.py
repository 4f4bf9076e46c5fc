"""Campaigns of marketing agencies: an example of tenants that share their tables."""
