"""Pages for customers. Owns: login, the usage page, and how numbers look on it. Does not own: the numbers
(`metering.reports`), nor who belongs to which customer (`billing.authentication`).
"""
