"""Signing in by an organization's provider (OpenID Connect Core 1.0).

The browser goes from the tenant to the platform, which asks the provider, and hands over to the tenant whoever came
back by a code of one use: so a provider knows one address, and neither a code nor a session opens another tenant.
"""
