"""What operators do with docker-compose.yml, done to the real thing: a project of its own, in a Docker engine."""
