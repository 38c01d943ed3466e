"""Real PostgreSQL servers for tests: one, a primary with its standby, and a proxy that cuts connections on the way."""
