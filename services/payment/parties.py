"""Who pays whom, and what must be known of them before. No I/O."""

from dataclasses import dataclass

from services.runtime.errors import FailedPrecondition, NotFound, PreconditionViolation


class PayeeNotFound(NotFound):
    """The user to pay does not exist."""

    message = "There is no user {payee_id} to pay."


class _Unmet(FailedPrecondition):
    """Something about the payer or the payee must be mended before the payment."""

    def __init__(self, user_id: str, violations: list[PreconditionViolation]) -> None:
        super().__init__(user_id=user_id, preconditions=violations)


class PayerNotActive(_Unmet):
    """The payer is suspended or gone."""

    message = "User {user_id} cannot pay: the user is not active."


class PayeeNotActive(_Unmet):
    """The payee is suspended."""

    message = "User {user_id} cannot be paid: the user is not active."


class KycRequired(_Unmet):
    """The payer has not passed the know-your-customer checks."""

    message = "User {user_id} cannot pay before the know-your-customer checks are passed."


class IdentityDocumentRequired(_Unmet):
    """The payer has no verified identity document."""

    message = "User {user_id} cannot pay before an identity document is uploaded and verified."


@dataclass(frozen=True, slots=True)
class Party:
    """What a payment needs to know about a user."""

    user_id: str
    display_name: str
    country: str
    active: bool


def require_parties(payer: Party | None, payee: Party | None, payer_id: str, payee_id: str) -> tuple[Party, Party]:
    """Returns both parties. Raises PayeeNotFound, PayerNotActive or PayeeNotActive."""
    if payee is None:
        raise PayeeNotFound(payee_id=payee_id)
    for party, user_id, error in ((payer, payer_id, PayerNotActive), (payee, payee_id, PayeeNotActive)):
        if party is None or not party.active:
            raise error(user_id, [PreconditionViolation("USER_ACTIVE", user_id, "The user is not active.")])
    assert payer is not None  # noqa: S101  # for mypy: the loop refused it
    return payer, payee


def require_identified(payer_id: str, *, kyc_passed: bool, has_document: bool) -> None:
    """Raises KycRequired or IdentityDocumentRequired, naming all that is missing."""
    missing = []
    if not kyc_passed:
        missing.append(PreconditionViolation("KYC_REQUIRED", payer_id, "The KYC checks are not passed."))
    if not has_document:
        description = "There is no verified passport, identity card or driving licence."
        missing.append(PreconditionViolation("IDENTITY_DOCUMENT_REQUIRED", payer_id, description))
    if missing:
        raise (IdentityDocumentRequired if kyc_passed else KycRequired)(payer_id, missing)
