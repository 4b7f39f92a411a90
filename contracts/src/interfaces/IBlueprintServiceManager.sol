// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title The hooks through which a blueprint's manager takes part in its services
/// @notice Only the tangle contract calls them, each with at most 500,000 gas. These are the hooks that
/// concern a running service; those of operator registration, slashing and membership are not declared here.
interface IBlueprintServiceManager {
    /// @notice A service of the blueprint has started. Reverting stops it.
    function onServiceInitialized(
        uint64 blueprintId,
        uint64 requestId,
        uint64 serviceId,
        address owner,
        address[] calldata permittedCallers,
        uint64 ttl
    ) external;

    /// @notice A service of the blueprint has ended. Failure is ignored.
    function onServiceTermination(uint64 serviceId, address owner) external;

    /// @notice A job is being called. Reverting rejects the call.
    function onJobCall(uint64 serviceId, uint8 job, uint64 jobCallId, bytes calldata inputs) external payable;

    /// @notice A result was accepted. Failure is only reported, by `ManagerHookFailed`.
    /// @param inputsHash keccak256 of the call's inputs.
    function onJobResult(
        uint64 serviceId,
        uint8 job,
        uint64 jobCallId,
        address operator,
        bytes32 inputsHash,
        bytes calldata outputs
    ) external payable;

    /// @notice How many results complete a call of the job; 0 counts as 1, and so does a failing hook.
    function getRequiredResultCount(uint64 serviceId, uint8 job) external view returns (uint32);

    /// @notice Whether results must be aggregated; a failing hook counts as true.
    function requiresAggregation(uint64 serviceId, uint8 job) external view returns (bool);

    /// @notice The share of signers that an aggregated result needs.
    /// @return thresholdBps In basis points.
    /// @return thresholdType 0 by count, 1 by stake.
    function getAggregationThreshold(uint64 serviceId, uint8 job)
        external
        view
        returns (uint16 thresholdBps, uint8 thresholdType);
}
