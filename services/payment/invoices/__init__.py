"""Invoices: what a payee asks of a payer. The database makes one PAID in the transaction that settles its payment."""
