"""Says who a request is from and whether it may pass, for the edge (ext_authz). Asks no store.

The way of a question: service (Check) → policy (what the RPC asks for) → credentials (what was sent) → tokens, by the
keys of their issuers (issuers, jwks, jwk), or api_keys (who) → answers (what the edge does).
"""
