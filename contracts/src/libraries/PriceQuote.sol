// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {JobQuoteDetails} from "../interfaces/TangleTypes.sol";

/// @title The EIP-712 digest and signature of a job's price quote
library PriceQuote {
    bytes32 internal constant TYPEHASH = keccak256(
        "JobQuoteDetails(address requester,uint64 serviceId,uint8 jobIndex,uint256 price,uint64 timestamp,"
        "uint64 expiry,uint8 confidentiality,bytes32 inputsHash)"
    );
    bytes32 private constant DOMAIN_TYPEHASH =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");

    /// @dev Half of the curve's order: higher `s` values are the malleable twins (EIP-2).
    uint256 private constant MAX_S = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0;

    /// @notice What the operator signs for use with the contract `tangle` on this chain.
    function digest(JobQuoteDetails calldata details, address tangle) internal view returns (bytes32) {
        bytes32 domain = keccak256(
            abi.encode(DOMAIN_TYPEHASH, keccak256("TangleQuote"), keccak256("1"), block.chainid, tangle)
        );
        return keccak256(abi.encodePacked("\x19\x01", domain, keccak256(abi.encode(TYPEHASH, details))));
    }

    /// @notice Whether `signature` is `operator`'s over `hash`: 65 bytes r, s, v in canonical form.
    function isSignedBy(bytes32 hash, bytes calldata signature, address operator)
        internal
        pure
        returns (bool)
    {
        if (signature.length != 65 || operator == address(0)) return false;
        bytes32 s = bytes32(signature[32:64]);
        if (uint256(s) > MAX_S) return false;
        return ecrecover(hash, uint8(signature[64]), bytes32(signature[:32]), s) == operator;
    }
}
