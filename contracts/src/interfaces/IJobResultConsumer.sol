// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title A contract that wants to be called back with the answers to the jobs that it submits
/// @notice To opt in, also return true from ERC-165's `supportsInterface` for this interface's id, at the
/// time when the job is submitted.
interface IJobResultConsumer {
    /// @notice Here is the answer to a call that this contract has submitted.
    /// @dev The sender is the blueprint's manager: check it. At most `CALLBACK_GAS` gas is given. A revert
    /// loses nothing: the result stands, and anybody may call `retryCallback` on the manager. The tangle
    /// contract is locked meanwhile, so no new job can be submitted from within the first attempt.
    function onJobResult(uint64 serviceId, uint8 jobIndex, uint64 callId, bytes calldata output) external;
}

/// @notice ERC-165.
interface IERC165 {
    function supportsInterface(bytes4 interfaceId) external view returns (bool);
}
