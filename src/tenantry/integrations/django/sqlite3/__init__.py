"""A database engine for Django's `DATABASES`."""
