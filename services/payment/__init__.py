"""Payments and the double-entry ledger they move money in.

Owns payments, accounts and entries. Calls user, compliance and document. Emits PaymentEvent on `payment.<payment id>`.
"""
