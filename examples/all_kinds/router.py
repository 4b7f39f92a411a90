"""One job for each kind of field, under the kind's own number; each gives back what it gets.

Serve it with ``blueprint run --router all_kinds.router:router`` from the folder above. What a deployment
declares on chain is ``router.schemas()``; with an empty schema the same jobs are served over the contract
ABI.
"""

from dataclasses import dataclass
from typing import Annotated

from blueprint.extract import (
    I8,
    I16,
    I32,
    I64,
    I128,
    I256,
    U8,
    U16,
    U32,
    U64,
    U128,
    U256,
    Bytes32,
    FixedArray,
    FixedBytes,
    Void,
)
from blueprint.router import Router
from blueprint.types import Address

router = Router()


@dataclass(frozen=True)
class Member:
    """A struct inside a struct."""

    account: Address
    weight: U16


@dataclass(frozen=True)
class Group:
    """A struct with every way of nesting."""

    title: str
    first: Member
    others: list[Member]
    note: str | None
    matrix: Annotated[list[Annotated[list[I32], FixedArray(2)]], FixedArray(2)]


@router.job(0)
async def void(nothing: Void) -> Void:
    """Take nothing, give nothing."""
    return nothing


@router.job(1)
async def boolean(value: bool) -> bool:
    """Echo a bool."""
    return value


@router.job(2)
async def u8(value: U8) -> U8:
    """Echo an unsigned integer of 8 bits."""
    return value


@router.job(3)
async def i8(value: I8) -> I8:
    """Echo a signed integer of 8 bits."""
    return value


@router.job(4)
async def u16(value: U16) -> U16:
    """Echo an unsigned integer of 16 bits."""
    return value


@router.job(5)
async def i16(value: I16) -> I16:
    """Echo a signed integer of 16 bits."""
    return value


@router.job(6)
async def u32(value: U32) -> U32:
    """Echo an unsigned integer of 32 bits."""
    return value


@router.job(7)
async def i32(value: I32) -> I32:
    """Echo a signed integer of 32 bits."""
    return value


@router.job(8)
async def u64(value: U64) -> U64:
    """Echo an unsigned integer of 64 bits."""
    return value


@router.job(9)
async def i64(value: I64) -> I64:
    """Echo a signed integer of 64 bits."""
    return value


@router.job(10)
async def u128(value: U128) -> U128:
    """Echo an unsigned integer of 128 bits."""
    return value


@router.job(11)
async def i128(value: I128) -> I128:
    """Echo a signed integer of 128 bits."""
    return value


@router.job(12)
async def u256(value: U256) -> U256:
    """Echo an unsigned integer of 256 bits."""
    return value


@router.job(13)
async def i256(value: I256) -> I256:
    """Echo a signed integer of 256 bits."""
    return value


@router.job(14)
async def address(value: Address) -> Address:
    """Echo an account."""
    return value


@router.job(15)
async def bytes32(value: Bytes32) -> Bytes32:
    """Echo thirty-two bytes."""
    return value


@router.job(16)
async def fixed_bytes(value: Annotated[bytes, FixedBytes(4)]) -> Annotated[bytes, FixedBytes(4)]:
    """Echo four bytes."""
    return value


@router.job(17)
async def string(value: str) -> str:
    """Echo a text."""
    return value


@router.job(18)
async def data(value: bytes) -> bytes:
    """Echo bytes."""
    return value


@router.job(19)
async def optional(value: U64 | None) -> U64 | None:
    """Echo a number or nothing."""
    return value


@router.job(20)
async def array(value: Annotated[list[U16], FixedArray(3)]) -> Annotated[list[U16], FixedArray(3)]:
    """Echo three numbers."""
    return value


@router.job(21)
async def numbers(value: list[I64]) -> list[I64]:
    """Echo numbers."""
    return value


@router.job(22)
async def struct(value: Group) -> Group:
    """Echo a group."""
    return value
