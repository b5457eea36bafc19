"""The product from outside: a started server, real clients, a real upstream.

Owns: what a customer, an operator and a machine see over HTTP.
Does not own: how it is done inside; nothing of the product is imported here.
"""
