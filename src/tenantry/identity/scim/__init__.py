"""Organizations' directories, which their providers keep up to date by SCIM 2.0 (RFC 7643, RFC 7644).

The control database holds who is there, who may sign in, and who is in which group. Tenants' users are made as people
sign in for the first time; who leaves is noted together with a mark for each tenant, which workers carry out.
"""
