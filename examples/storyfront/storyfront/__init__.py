"""Storyfront: a small site application that runs behind Tenantry, one website per tenant."""
