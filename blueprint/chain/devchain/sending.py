"""The methods that send: signed transactions, and those of the unlocked development accounts.

Invariant: only the accounts that the chain itself funded are unlocked; their keys are public anyway.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from eth_account import Account
from eth_account.messages import encode_defunct, encode_typed_data

from blueprint.chain.devaccounts import DevAccount
from blueprint.chain.devchain.errors import INVALID_PARAMS, SERVER_ERROR, JsonRpcError
from blueprint.chain.devchain.fees import Fees
from blueprint.chain.devchain.formats import data
from blueprint.chain.devchain.ledger import Ledger
from blueprint.chain.devchain.params import Params
from blueprint.chain.devchain.queries import Method

__all__ = ["Sending"]


class Sending:
    """Sends and signs for one ledger."""

    def __init__(self, ledger: Ledger, fees: Fees, accounts: Sequence[DevAccount]) -> None:
        self._ledger = ledger
        self._fees = fees
        self._accounts = {bytes(account.address): account for account in accounts}

    def methods(self) -> Mapping[str, Method]:
        """The methods by name."""
        return {
            "eth_accounts": lambda _: [data(address) for address in self._accounts],
            "eth_requestAccounts": lambda _: [data(address) for address in self._accounts],
            "eth_sendRawTransaction": lambda params: data(self._ledger.submit(params.data(0))),
            "eth_sendTransaction": self._send,
            "eth_sign": lambda params: self._sign(params.address(0), params.data(1)),
            "eth_signTypedData_v4": self._sign_typed,
            "personal_sign": lambda params: self._sign(params.address(1), params.data(0)),
        }

    def _account(self, address: bytes) -> DevAccount:
        account = self._accounts.get(address)
        if account is None:
            raise JsonRpcError(SERVER_ERROR, f"unknown account {data(address)}: it is not unlocked here")
        return account

    def _send(self, params: Params) -> object:
        members = params.members(0)
        request = params.call(0)
        account = self._account(request.sender)
        fields = Params([members.get(name) for name in ("nonce", "gasPrice", "maxFeePerGas")])
        tip = Params([members.get("maxPriorityFeePerGas")])
        gas = request.gas
        if gas is None:
            # Headroom over the estimate, because the state may have moved on by the time it is mined.
            header = self._ledger.head.header
            estimate = self._fees.estimate(replace(request, gas=None), header)
            gas = min(int(header.gas_limit), estimate * 5 // 4)
        transaction: dict[str, object] = {
            "chainId": self._ledger.chain_id,
            "nonce": (
                self._ledger.pending_nonce(request.sender) if fields.raw(0) is None else fields.quantity(0)
            ),
            "gas": gas,
            "value": request.value_wei,
            "data": request.data,
        }
        if request.to is not None:
            transaction["to"] = request.to
        if fields.raw(1) is not None:
            transaction["gasPrice"] = fields.quantity(1)
        else:
            max_fee, max_tip = self._fees.suggest_wei()
            transaction["maxFeePerGas"] = max_fee if fields.raw(2) is None else fields.quantity(2)
            transaction["maxPriorityFeePerGas"] = max_tip if tip.raw(0) is None else tip.quantity(0)
        signed = Account.sign_transaction(transaction, account.private_key)
        return data(self._ledger.submit(bytes(signed.raw_transaction)))

    def _sign(self, address: bytes, message: bytes) -> object:
        account = self._account(address)
        signed = Account.sign_message(encode_defunct(primitive=message), account.private_key)
        return data(bytes(signed.signature))

    def _sign_typed(self, params: Params) -> object:
        account = self._account(params.address(0))
        document = params.members(1)
        try:
            message = encode_typed_data(full_message=dict(document))
        except (KeyError, TypeError, ValueError) as exc:
            raise JsonRpcError(INVALID_PARAMS, f"invalid argument 1: not EIP-712 data: {exc}") from exc
        return data(bytes(Account.sign_message(message, account.private_key).signature))
