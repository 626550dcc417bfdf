"""Know-your-customer records, sanctions screening and the risk of payments.

Owns users' profiles as far as KYC needs them, the sanctions list and the record of screenings. Calls nobody, emits
nothing; listens to UserEvent.
"""
