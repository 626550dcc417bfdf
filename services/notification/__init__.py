"""What users are told about their payments, documents and passwords: in the app, by e-mail, SMS, push message and
webhook.

Owns notifications, preferences, webhooks and deliveries. Calls user, emits nothing; listens to PaymentEvent,
DocumentEvent and PasswordEvent.
"""
