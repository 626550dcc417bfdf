"""The native stack: Postgres, NATS, Envoy and the services out of wheels, under supervisor. See __main__.py."""
