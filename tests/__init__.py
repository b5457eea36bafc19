"""Tests of every app, the servers they need, and nothing that the product imports.

Owns: fixtures, private servers, doubles of other people's services.
Does not own: any rule of the product; a rule that only a test knows belongs in the code.
"""
