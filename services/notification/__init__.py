"""What users are told about their payments.

Owns notifications. Calls nobody, emits nothing; listens to PaymentEvent.
"""
