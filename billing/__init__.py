"""Who owes what. Owns: customers, their users and keys, billing periods, who is admitted, what a customer sees of its usage.
Does not own: what a unit costs (`pricing`), what was used (`metering`; read through `metering.reports` only).
"""
