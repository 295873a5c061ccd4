"""The schema's history. `up` brings any older database to the newest."""
