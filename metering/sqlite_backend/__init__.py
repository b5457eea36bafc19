"""Django's SQLite backend with the turnstile in front of every write, WAL and full durability.

Owns: how Django's own writes queue beside the recorder's. Does not own: any SQL.
"""
