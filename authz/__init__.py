"""Says who a request is from and whether it may pass, for the edge (ext_authz). Asks no store.

The way of a question: service (Check) → policy (what the RPC asks for) → tokens (who) → jwks (the issuer's keys).
"""
