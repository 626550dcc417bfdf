"""What every server runs on. Knows gRPC, Postgres and NATS; knows no service and no business word."""
