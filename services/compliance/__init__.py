"""Know-your-customer records, sanctions screening and the risk of payments; and what everybody did, for officers.

Owns users' profiles as far as KYC needs them, the sanctions list and the record of screenings. Calls all others for
their audit trails, emits nothing; listens to UserEvent.
"""
