"""A database engine for Django's `DATABASES`; importing it puts PyMySQL, a driver without C, in mysqlclient's place."""

import sys

import pymysql
from django.core.exceptions import ImproperlyConfigured

if sys.modules.get("MySQLdb", pymysql) is not pymysql:
    raise ImproperlyConfigured(
        "tenantry.integrations.django.mysql works with PyMySQL, and mysqlclient is loaded already. "
        "Write `import tenantry.integrations.django.mysql` at the top of the settings: Django uses PyMySQL then."
    )
pymysql.install_as_MySQLdb()
