// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ExecuteJob} from "./libraries/ExecuteJob.sol";

/// @title The encoding of the `execute` job, callable from outside
/// @notice Gives tools that are not written in Solidity the ABI of the request and of the result, and a
/// reference to check their own encoding against. No other contract needs it.
contract ExecuteJobCodec {
    function snippet(string calldata language, string calldata code) external pure returns (bytes memory) {
        return ExecuteJob.snippet(language, code);
    }

    function encodeRequest(ExecuteJob.Request calldata request) external pure returns (bytes memory) {
        return ExecuteJob.encode(request);
    }

    function decodeRequest(bytes calldata inputs) external pure returns (ExecuteJob.Request memory) {
        return ExecuteJob.decodeRequest(inputs);
    }

    function encodeResult(ExecuteJob.Result calldata result) external pure returns (bytes memory) {
        return ExecuteJob.encode(result);
    }

    function decodeResult(bytes calldata output) external pure returns (ExecuteJob.Result memory) {
        return ExecuteJob.decodeResult(output);
    }
}
