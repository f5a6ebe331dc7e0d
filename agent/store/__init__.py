"""The call log in SQL: written while the call runs, read by the API."""
