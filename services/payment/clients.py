"""What payment asks of user, compliance and document."""

import grpc
from compliance.v1 import compliance_pb2, compliance_pb2_grpc
from document.v1 import document_pb2, document_pb2_grpc
from user.v1 import user_pb2, user_pb2_grpc

from services.payment import money
from services.payment.domain import State, Verdict
from services.payment.ledger.domain import Money
from services.payment.parties import Party

_VERDICTS = {
    compliance_pb2.ScreenPaymentResponse.ALLOW: State.AUTHORIZED,
    compliance_pb2.ScreenPaymentResponse.REVIEW: State.IN_REVIEW,
    compliance_pb2.ScreenPaymentResponse.DECLINE: State.DECLINED,
}


class Users:
    """The user service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: user_pb2_grpc.UserServiceAsyncStub = user_pb2_grpc.UserServiceStub(channel)

    async def parties(self, *user_ids: str) -> dict[str, Party]:
        """Returns those of the users that exist, by id."""
        response = await self._stub.BatchGetUsers(user_pb2.BatchGetUsersRequest(user_ids=user_ids))
        return {
            user.id: Party(user.id, user.display_name, user.country, user.state == user_pb2.User.ACTIVE)
            for user in response.users
        }


class Compliance:
    """The compliance service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: compliance_pb2_grpc.ComplianceServiceAsyncStub = compliance_pb2_grpc.ComplianceServiceStub(channel)

    async def kyc_passed(self, user_id: str) -> bool:
        """Tells whether a user's KYC is VERIFIED."""
        response = await self._stub.CheckKYC(compliance_pb2.CheckKYCRequest(user_id=user_id))
        return response.state == compliance_pb2.Kyc.VERIFIED

    async def screen(self, payment_id: str, payer: Party, payee: Party, amount: Money) -> Verdict:
        """Has a payment screened for risk."""
        response = await self._stub.ScreenPayment(
            compliance_pb2.ScreenPaymentRequest(
                payment_id=payment_id, payer=_party(payer), payee=_party(payee), amount=money.write(amount)
            )
        )
        reason = response.reasons[0] if response.reasons else ""
        return Verdict(_VERDICTS[response.decision], reason, response.risk_score)


class Documents:
    """The document service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: document_pb2_grpc.DocumentServiceAsyncStub = document_pb2_grpc.DocumentServiceStub(channel)

    async def has_identity(self, user_id: str) -> bool:
        """Tells whether a user has a verified identity document."""
        request = document_pb2.FindIdentityDocumentRequest(user_id=user_id)
        return bool((await self._stub.FindIdentityDocument(request)).document_id)


def _party(party: Party) -> compliance_pb2.Party:
    return compliance_pb2.Party(user_id=party.user_id, display_name=party.display_name, country=party.country)
