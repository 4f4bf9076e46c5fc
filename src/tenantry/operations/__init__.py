"""What is done to tenants: durable operations, one file a verb, and the workers that run them."""

from __future__ import annotations
