"""The double-entry ledger: accounts, and the entries between them, which sum to zero. The database keeps its rules."""
