"""What was used.

Owns: the metered call (middleware, extraction, holds, events), usage and its corrections, daily roll-ups and the reports
over them. Does not own: prices (`pricing`), and who pays (`billing`); a customer is an id here, never a foreign key.
"""
