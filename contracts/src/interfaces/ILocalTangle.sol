// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ITangleJobs} from "./ITangleJobs.sol";
import {JobSpec, Pricing} from "./TangleTypes.sol";

/// @title The job protocol with plain set-up functions, for local and private networks
/// @notice Implements jobs, results, quoted jobs, event-driven payment and the manager's job hooks as the
/// protocol does. Left out, because a job node does not touch them: staking and delegation, operator
/// registration, service requests and approvals, membership changes by operators, subscriptions and ERC-20
/// payment, fees and reward distribution, slashing, heartbeats, BLS aggregation (`submitAggregatedResult`;
/// `AggregationRequired` is enforced), TEE commitments and upgrades. The functions of this interface stand
/// in for them and are not part of the protocol. Where the protocol keeps an answer open:
/// - event-driven payment is shared equally among the service's operators, and a quoted job pays each quoted
///   operator its price, whatever the service's pricing;
/// - value sent where none is due is refused, not kept.
interface ILocalTangle is ITangleJobs {
    /// @notice Wei was paid to an operator for a completed call, or set aside when the transfer failed.
    event OperatorPaid(
        uint64 indexed serviceId, uint64 indexed callId, address indexed operator, uint256 amount
    );

    error RewardTransferFailed(address operator, uint256 amount);
    error Reentered();

    /// @notice Make a template of services. Schemas are checked: a malformed one reverts with
    /// `SchemaValidationFailed` or `InvalidSchemaVersion`.
    /// @param manager The contract whose hooks are called, or the zero address for none.
    /// @param jobs At most 256; the position is the job index.
    /// @param eventRate Wei due for each call when `pricing` is `EventDriven`.
    /// @return blueprintId Sequential from 0.
    function registerBlueprint(address manager, JobSpec[] calldata jobs, Pricing pricing, uint256 eventRate)
        external
        returns (uint64 blueprintId);

    /// @notice Start a service, owned by the sender, who may call its jobs too.
    /// @param operators At least one; they may answer.
    /// @param permittedCallers Further accounts that may call.
    /// @param ttl Seconds until it expires; 0 for never.
    /// @return serviceId Sequential from 0.
    function activateService(
        uint64 blueprintId,
        address[] calldata operators,
        address[] calldata permittedCallers,
        uint64 ttl
    ) external returns (uint64 serviceId);

    /// @notice Let `operator` join or leave; only the owner.
    function setOperator(uint64 serviceId, address operator, bool active) external;

    /// @notice Let `caller` call jobs, or no longer; only the owner.
    function permitCaller(uint64 serviceId, address caller, bool permitted) external;

    /// @notice End the service; only the owner. No call of it can be submitted or answered afterwards.
    function terminateService(uint64 serviceId) external;

    /// @notice The sender declares itself active or not as an operator, in all services; it stands in for
    /// staking. Every account is active until it says otherwise.
    function setActive(bool active) external;

    /// @notice Wei that are set aside for `operator` because a transfer to it failed.
    function pendingRewards(address operator) external view returns (uint256);

    /// @notice Pay out what is set aside for the sender.
    function claimRewards() external;
}
