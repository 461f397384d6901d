"""State: everything the service must not forget lives in this database."""
