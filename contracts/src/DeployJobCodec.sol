// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {DeployJob} from "./libraries/DeployJob.sol";

/// @title The encoding of the `deploy` job, callable from outside
/// @notice Gives tools that are not written in Solidity the ABI of the requests and of the result, and a
/// reference to check their own encoding against. No other contract needs it.
contract DeployJobCodec {
    function prepare(DeployJob.Preparation calldata preparation) external pure returns (bytes memory) {
        return DeployJob.encode(preparation);
    }

    function commit(uint64 callId, DeployJob.Result calldata prepared, bytes calldata sealedVariables)
        external
        pure
        returns (bytes memory)
    {
        return DeployJob.commit(callId, prepared, sealedVariables);
    }

    function remove(uint64 callId, address operator) external pure returns (bytes memory) {
        return DeployJob.remove(callId, operator);
    }

    function decodeRequest(bytes calldata inputs) external pure returns (DeployJob.Request memory) {
        return DeployJob.decodeRequest(inputs);
    }

    function decodePreparation(bytes calldata body) external pure returns (DeployJob.Preparation memory) {
        return DeployJob.decodePreparation(body);
    }

    function decodeCommitment(bytes calldata body) external pure returns (DeployJob.Commitment memory) {
        return DeployJob.decodeCommitment(body);
    }

    function decodeRemoval(bytes calldata body) external pure returns (DeployJob.Removal memory) {
        return DeployJob.decodeRemoval(body);
    }

    function encodeResult(DeployJob.Result calldata result) external pure returns (bytes memory) {
        return DeployJob.encode(result);
    }

    function decodeResult(bytes calldata output) external pure returns (DeployJob.Result memory) {
        return DeployJob.decodeResult(output);
    }
}
