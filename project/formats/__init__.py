"""How instants and days are written on pages."""
