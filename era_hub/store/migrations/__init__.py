"""Alembic migrations; `Database.migrate` applies them at the start of the service."""
