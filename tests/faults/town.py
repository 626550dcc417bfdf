"""Customers under fire: they pay, are paid, call off, give back and upload, and ask again when unsure."""

import secrets
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event

from tests.edge.people import People, Person, scan
from tests.faults.book import Subscription
from tests.faults.log import CHANCE, Log, Wish, deposit, money, pay, upload
from tests.traffic.receiver import Post

START_CENTS = 10**10
"""What each has in the beginning, of EUR as all amounts: nobody runs out of it."""
SMALL_CENTS = 9_999
LARGE_CENTS = 1_000_000
"""From here on an officer looks at a payment: compliance's AMOUNT_THRESHOLD."""
TOO_MUCH_CENTS = 10**12
"""What nobody has."""


@dataclass(frozen=True, slots=True)
class Town:
    """People who pay each other, and an admin, who is treasurer and officer too."""

    log: Log
    admin: Person
    people: list[Person]
    accounts: Mapping[str, str]
    """The id of everybody's account in EUR, by user."""
    subscription: Subscription
    """Of the first of them."""

    @classmethod
    def found(cls, log: Log, people: People, number: int, url: str, posts: Sequence[Post]) -> "Town":
        """Signs that many people up and gives each money; the first gets a webhook to `url`, where `posts` come."""
        inhabitants = people.payers([0] * number)
        webhook = inhabitants[0].client.post("/api/v1/webhooks", json={"url": url}).raise_for_status().json()
        subscription = Subscription(inhabitants[0].id, webhook["secret"], posts)
        accounts = {person.id: person.account()["id"] for person in inhabitants}
        for account_id in accounts.values():
            log.fulfil(deposit(log, people.admin, account_id, START_CENTS))
        return cls(log, people.admin, inhabitants, accounts, subscription)


class Customer:
    """Somebody of the town. What each does once, in a loop, by chance."""

    def __init__(self, town: Town, person: Person) -> None:
        self._town = town
        self._log = town.log
        self._person = person
        self._account_id = town.accounts[person.id]
        self._others = [other for other in town.people if other is not person]
        self._settled: deque[tuple[Person, Wish]] = deque(maxlen=20)

    def live(self, until: Event) -> None:
        """Does one thing after the other; what was begun is finished."""
        deeds: list[tuple[Callable[[], object], int]] = [
            (self._buy, 10),
            (self._overspend, 1),
            (self._save, 2),
            (self._be_reviewed, 2),
            (self._call_off, 2),
            (self._be_refunded, 3),
            (self._be_invoiced, 2),
            (self._prove_address, 1),
        ]
        choices = [deed for deed, weight in deeds for _ in range(weight)]
        while not until.is_set():
            CHANCE.choice(choices)()

    def _buy(self) -> None:
        payee = CHANCE.choice(self._others)
        wish = self._fulfil(pay(self._log, self._person, payee, CHANCE.randint(1, SMALL_CENTS)))
        self._settled.append((payee, wish))

    def _overspend(self) -> None:
        self._fulfil(pay(self._log, self._person, CHANCE.choice(self._others), TOO_MUCH_CENTS))

    def _save(self) -> None:
        self._fulfil(deposit(self._log, self._town.admin, self._account_id, CHANCE.randint(1, SMALL_CENTS)))

    def _be_reviewed(self) -> None:
        self._decide(self._town.admin, CHANCE.choice(["approve", "decline"]), self._pay_much())

    def _call_off(self) -> None:
        """Calls off a payment in review, or one that may be settled meanwhile."""
        if CHANCE.random() < 0.5:
            payment_id = self._pay_much()
        else:
            wish = self._fulfil(pay(self._log, self._person, CHANCE.choice(self._others), SMALL_CENTS))
            payment_id = wish.told()["id"]
        self._decide(self._person, "cancel", payment_id)

    def _be_refunded(self) -> None:
        """Gets a part of a payment back, or all of it: from the payee, who may be too early."""
        if not self._settled:
            return
        payee, wish = self._settled.popleft()
        first = wish.cents if CHANCE.random() < 0.5 else CHANCE.randint(1, wish.cents)
        for cents in (first, wish.cents - first):
            if cents:
                path = f"payments/{wish.told()['id']}:refund"
                refund = self._log.wish("refund", payee, path, {"amount": money(cents)}, cents=cents)
                if not self._fulfil(refund).granted:
                    return

    def _be_invoiced(self) -> None:
        """Is sent an invoice, and pays it, or it is taken back; both at once now and then."""
        payee, cents = CHANCE.choice(self._others), CHANCE.randint(1, SMALL_CENTS)
        lines = [{"description": "Cake", "quantity": 1, "unitAmount": money(cents)}]
        body = {"payerId": self._person.id, "lines": lines, "dueDate": {"year": 2100, "month": 1, "day": 1}}
        body["description"] = secrets.token_hex(8)  # what the payment will have, for its key
        issued = self._fulfil(self._log.wish("invoice", payee, "invoices", body, keyed=False))
        invoice_id = issued.told()["id"]
        if CHANCE.random() < 0.2:
            self._fulfil(self._log.wish("void", payee, f"invoices/{invoice_id}:void", {}, keyed=False))
        else:
            path = f"invoices/{invoice_id}:pay"
            self._fulfil(self._log.wish("invoice payment", self._person, path, {}, cents=cents))

    def _prove_address(self) -> None:
        """Uploads a bill, which is read at nobody's request, and has it read again now and then."""
        document = self._fulfil(upload(self._log, self._person, "PROOF_OF_ADDRESS", scan((210, 210)))).told()
        if CHANCE.random() < 0.5:
            self._fulfil(self._log.wish("verify", self._person, f"documents/{document['id']}:verify", {}, keyed=False))

    def _pay_much(self) -> str:
        wish = self._fulfil(pay(self._log, self._person, CHANCE.choice(self._others), LARGE_CENTS))
        return str(wish.told()["id"])

    def _decide(self, who: Person, verb: str, payment_id: str) -> None:
        self._fulfil(self._log.wish(verb, who, f"payments/{payment_id}:{verb}", {}, keyed=False))

    def _fulfil(self, wish: Wish) -> Wish:
        """Asks until it is answered; now and then once more, as who has lost the answer."""
        self._log.fulfil(wish)
        if wish.key and CHANCE.random() < 0.2:
            self._log.ask(wish)
        return wish


@contextmanager
def living(town: Town) -> Iterator[None]:
    """Has the town's people live for a while; at the end each has finished what it was at."""
    enough = Event()
    with ThreadPoolExecutor(len(town.people)) as threads:
        lives = [threads.submit(Customer(town, person).live, enough) for person in town.people]
        try:
            yield
        finally:
            enough.set()
            for life in lives:
                life.result()
