"""Users, their profiles, the sessions in which they act, and the keys that access tokens are signed with.

Owns users, sessions and signing keys. Calls nobody. Emits UserEvent on `user.<user id>`,
SessionEvent on `session.<id>`, and PasswordEvent on `password.<id>`.
"""
