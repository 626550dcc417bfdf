"""The edge alone: a real Envoy between recording clients and services. See conftest.py."""
