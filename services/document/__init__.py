"""Documents that prove who a user is: files, what was found out about them, and whether they were accepted.

Owns documents and their files in the object store. Calls user. Emits DocumentEvent on `document.<document id>`; listens
to UserEvent.
"""
