"""Programs that answer: a service over Postgres, a participant without a database, a server of empty calls."""
