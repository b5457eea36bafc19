"""What a unit costs.

Owns: names of billable units, usage as a value, dated rates and price books, the compiled rate card, rating, rounding of
amounts, the column for exact amounts, the clock.
Does not own: how usage is read from a response (metering), who pays for it and by which plan (billing).

Inside, `units`, `usage`, `money`, `clock`, `pricelist` and `rating` are pure and import no Django: they run on every call.
A rate is never edited; a new price is a new dated rate. A price that is not known makes a charge `unpriced`, never 0.
"""
