"""Payments, the double-entry ledger they move money in, and the invoices they pay.

Owns payments, accounts, entries and invoices. Calls user, compliance and document.
Emits PaymentEvent on `payment.<payment id>`.
"""
