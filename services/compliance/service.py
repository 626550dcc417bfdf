"""The servicer of compliance: proto to domain to proto."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import grpc
from compliance.v1 import compliance_pb2, compliance_pb2_grpc
from google.type.money_pb2 import Money

from services.compliance.domain import Amount, Kyc, KycNotFound, Profile, State, assess, judge
from services.compliance.sanctions import Sanctions
from services.compliance.store import Profiles, Screenings
from services.runtime import caller

Context = grpc.aio.ServicerContext[Any, Any]


class ComplianceService(compliance_pb2_grpc.ComplianceServiceServicer):
    """See proto/compliance/v1/compliance.proto."""

    def __init__(self, profiles: Profiles, sanctions: Sanctions, screenings: Screenings) -> None:
        self._profiles = profiles
        self._sanctions = sanctions
        self._screenings = screenings

    async def GetKyc(self, request: compliance_pb2.GetKycRequest, _: Context) -> compliance_pb2.Kyc:
        who = caller.current()
        user_id = who.resolve(request.user_id)
        profile = await self._profiles.find(user_id)
        if profile is None:
            if user_id != who.user_id:
                raise KycNotFound(user_id=user_id)
            return compliance_pb2.Kyc(user_id=user_id, state=compliance_pb2.Kyc.PENDING)
        who.require_owner(user_id, f"The KYC record of user {user_id}", "officer")
        return _kyc(profile, self._assess(profile))

    async def CheckKYC(self, request: compliance_pb2.CheckKYCRequest, _: Context) -> compliance_pb2.CheckKYCResponse:
        profile = await self._profiles.find(request.user_id)
        state = self._assess(profile).state if profile else State.PENDING
        return compliance_pb2.CheckKYCResponse(state=compliance_pb2.Kyc.State.ValueType(state.value))

    async def ScreenPayment(
        self, request: compliance_pb2.ScreenPaymentRequest, _: Context
    ) -> compliance_pb2.ScreenPaymentResponse:
        parties = (request.payer, request.payee)
        amount, countries = _amount(request.amount), frozenset(party.country for party in parties)
        listed = any(self._sanctions.match(party.display_name) for party in parties)
        verdicts = (judge(amount, countries, listed=listed, over_velocity=over) for over in (False, True))
        verdict = await self._screenings.record(request.payment_id, request.payer.user_id, amount, *verdicts)
        return compliance_pb2.ScreenPaymentResponse(
            decision=compliance_pb2.ScreenPaymentResponse.Decision.ValueType(verdict.decision.value),
            risk_score=verdict.score,
            reasons=verdict.reasons,
        )

    def _assess(self, profile: Profile) -> Kyc:
        return assess(profile, self._sanctions.match(profile.display_name), datetime.now(UTC).date())


def _amount(proto: Money) -> Amount:
    return Amount(proto.currency_code, Decimal(proto.units) + Decimal(proto.nanos).scaleb(-9))


def _kyc(profile: Profile, kyc: Kyc) -> compliance_pb2.Kyc:
    proto = compliance_pb2.Kyc(user_id=profile.user_id, state=compliance_pb2.Kyc.State.ValueType(kyc.state.value))
    for check in kyc.checks:
        outcome = compliance_pb2.KycCheck.Outcome.ValueType(check.outcome.value)
        proto.checks.add(name=check.name, outcome=outcome, detail=check.detail)
    proto.create_time.FromDatetime(profile.create_time)
    proto.update_time.FromDatetime(profile.update_time)
    return proto
