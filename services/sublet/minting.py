"""
Minting: one token for whoever holds a lease. Its latest end is recorded before it exists, the
bucket must still be the one that was verified, and it is handed out only if the lease is still at
the same epoch afterwards.
"""

from dataclasses import replace
from hashlib import sha256

from sublet.data_accounts import DataAccounts
from sublet.delivery import Delivery
from sublet.errors import Conflict, FailedPrecondition, LostRace, NotFound, TryAgain
from sublet.handover import AccessToken
from sublet.leases import Lease, LeaseState, LeaseTerms, MintedToken
from sublet.names import LeaseName
from sublet.ownership import Ownership
from sublet.ports import Clock, Registry, Seal, Stored, TokenMint


class Minting:
    def __init__(
        self,
        *,
        registry: Registry,
        data_accounts: DataAccounts,
        ownership: Ownership,
        delivery: Delivery,
        mint: TokenMint,
        seal: Seal,
        clock: Clock,
        terms: LeaseTerms,
    ) -> None:
        self._registry = registry
        self._data_accounts = data_accounts
        self._ownership = ownership
        self._delivery = delivery
        self._mint = mint
        self._seal = seal
        self._clock = clock
        self._terms = terms

    def mint_for(self, name: LeaseName, epoch: int) -> AccessToken:
        """
        One token for the holder at `epoch`.

        The latest end is committed first, so no crash can hide a living token; the lease is read
        again after, so that a token minted while the lease was ended reaches nobody (its end is
        covered).

        Raises:
            Conflict: the lease was ended or taken over. FailedPrecondition: it has expired.
            TryAgain: the data account is not enabled everywhere yet, or Google is busy.
        """
        lease = self._about_to_mint(name, epoch)
        token = self._minted(lease)
        record = MintedToken(
            sha256=sha256(token.secret.encode()).hexdigest(),
            minted_at=self._clock.now(),
            dies_at=token.expires_at,
        )
        sealed = self._seal.seal(token.secret)
        prepared = self._delivery.prepared(lease, token.secret, sealed_token=sealed)
        while True:
            stored = self._get(name)
            if stored.record.state is LeaseState.REVOKED:
                raise Conflict(f"{name} was proved to have ended while a token was minted")
            minted = stored.record.minted(record, sealed=sealed)
            if not minted.sealed_upload:
                minted = replace(
                    minted,
                    sealed_upload=prepared.sealed_upload,
                    receipt_object=prepared.receipt_object,
                )
            try:
                self._registry.commit(stored.replaced_by(minted))
            except LostRace:
                continue
            if minted.epoch != epoch:
                raise Conflict(f"{name} was ended or taken over while a token was minted")
            return token

    def _about_to_mint(self, name: LeaseName, epoch: int) -> Lease:
        while True:
            stored = self._get(name)
            now = self._clock.now()
            if stored.record.epoch != epoch:
                raise Conflict(f"{name} is at epoch {stored.record.epoch}; got {epoch}")
            if now >= stored.record.expires_at:
                raise FailedPrecondition(f"{name} has expired")
            self._ownership.check_same_bucket(name.account, stored.record.bucket_identity)
            latest_end = now + self._terms.ttl_of(stored.record.purpose) + self._terms.clock_skew
            lease = stored.record.about_to_mint(dies_at=latest_end)
            try:
                self._registry.commit(stored.replaced_by(lease))
            except LostRace:
                continue
            return lease

    def _minted(self, lease: Lease, *, once_more: bool = True) -> AccessToken:
        """
        A token that dies with the lease at the latest.

        An account that is not lit as recorded is lit now: whoever was to light it died before, or
        whoever darkened it for an earlier lease died before looking again.
        """
        left = lease.expires_at - self._clock.now()
        ttl = min(self._terms.ttl_of(lease.purpose), left)
        try:
            return self._mint.mint(
                lease.data_account,
                reads=lease.reads,
                beside=lease.reads_beside,
                writes=lease.writes,
                ttl=ttl,
            )
        except TryAgain:
            self._data_accounts.settle(lease.data_account)
            if not once_more:
                raise
        return self._minted(lease, once_more=False)

    def _get(self, name: LeaseName) -> Stored[Lease]:
        stored = self._registry.get(Lease, name)
        if stored is None:
            raise NotFound(f"{name} does not exist")
        return stored
