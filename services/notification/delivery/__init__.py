"""What is on its way to users by e-mail, SMS, push and webhook: written with the event, sent by a worker."""
