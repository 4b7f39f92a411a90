// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {BlueprintDefinition, Confidentiality, JobCall, Service, SignedJobQuote} from "./TangleTypes.sol";

/// @title The part of the Tangle EVM job protocol that callers and job nodes use
/// @notice Selectors, topics and errors are those of the deployed protocol, so a node that works with one
/// implementation works with every other.
interface ITangleJobs {
    /// @notice A job was called. `jobIndex` is not indexed: three topics.
    event JobSubmitted(
        uint64 indexed serviceId, uint64 indexed callId, uint8 jobIndex, address caller, bytes inputs
    );

    /// @notice A job was bought with price quotes. Emitted instead of `JobSubmitted`; only `quotedOperators`
    /// may answer.
    event JobSubmittedFromQuote(
        uint64 indexed serviceId,
        uint64 indexed callId,
        uint8 jobIndex,
        address caller,
        address[] quotedOperators,
        uint256 totalPrice,
        bytes inputs
    );

    /// @notice An operator's result was accepted and counted.
    event JobResultSubmitted(
        uint64 indexed serviceId, uint64 indexed callId, address indexed operator, bytes output
    );

    /// @notice The call has as many results as the manager requires; no further one is accepted.
    event JobCompleted(uint64 indexed serviceId, uint64 indexed callId);

    event ServiceActivated(
        uint64 indexed serviceId,
        uint64 indexed requestId,
        uint64 indexed blueprintId,
        Confidentiality confidentiality
    );

    event ServiceTerminated(uint64 indexed serviceId);

    /// @notice A hook whose failure blocks nothing has failed.
    event ManagerHookFailed(address indexed manager, bytes4 indexed selector, bytes returnData);

    /// @notice A price quote was used up; precedes `JobSubmittedFromQuote` in the same transaction.
    event QuoteUsed(address indexed operator, bytes32 indexed quoteHash);

    error BlueprintNotFound(uint64 blueprintId);
    error ServiceNotFound(uint64 serviceId);
    error ServiceNotActive(uint64 serviceId);
    error ServiceExpired(uint64 serviceId);
    error NotServiceOwner(uint64 serviceId, address caller);
    error NotPermittedCaller(uint64 serviceId, address caller);
    error OperatorNotInService(uint64 serviceId, address operator);
    error OperatorNotActive(address operator);
    error NoOperators();
    error LengthMismatch();

    error InvalidJobIndex(uint8 jobIndex);
    error JobCallNotFound(uint64 serviceId, uint64 callId);
    error JobAlreadyCompleted(uint64 serviceId, uint64 callId);
    error ResultAlreadySubmitted(uint64 serviceId, uint64 callId, address operator);
    error AggregationRequired(uint64 serviceId, uint8 jobIndex);

    /// @notice The manager's `onJobCall` reverted with `reason`.
    error ManagerReverted(address manager, bytes reason);

    /// @notice The manager's `onJobCall` reverted without a reason.
    error ManagerRejected(address manager);

    error InvalidMsgValue(uint256 expected, uint256 sent);

    error NoQuotes();
    error DuplicateOperatorQuote(address operator);
    error JobQuoteServiceMismatch(uint64 expected, uint64 quoted);
    error JobQuoteJobIndexMismatch(uint8 expected, uint8 quoted);
    error JobQuoteRequesterMismatch(address operator, address quoted, address expected);
    error JobQuoteInputsMismatch(address operator, bytes32 expected, bytes32 quoted);
    error PaymentTooSmall(uint256 amount, uint256 minimumRequired);
    error QuoteExpired(address operator, uint64 expiry);
    error QuoteTimestampTooOld(address operator, uint64 timestamp, uint64 maxAge);
    error QuoteAlreadyUsed(address operator);
    error InvalidQuoteSignature(address operator);
    error NotQuotedOperator(uint64 serviceId, uint64 callId);

    /// @notice Bytes do not match their TLV schema.
    /// @param target What was checked: 2 a job's inputs, 3 a job's output.
    /// @param refId The blueprint.
    /// @param auxId The job index.
    /// @param path The field: its index, for nested fields preceded by the indices above it, 16 bits each.
    /// When bytes are left over after the last field: how many the fields took.
    error SchemaValidationFailed(uint8 target, uint64 refId, uint64 auxId, uint256 path);

    error InvalidSchemaVersion(uint8 expected, uint8 actual);

    /// @notice Ask the service for one run of a job. The caller must be permitted, and must send exactly the
    /// event rate where pricing is event driven, otherwise nothing.
    /// @return callId Sequential from 0 in each service.
    function submitJob(uint64 serviceId, uint8 jobIndex, bytes calldata inputs)
        external
        payable
        returns (uint64 callId);

    /// @notice The same, at the prices that operators have signed; the value sent must be their sum.
    function submitJobFromQuote(
        uint64 serviceId,
        uint8 jobIndex,
        bytes calldata inputs,
        SignedJobQuote[] calldata quotes
    ) external payable returns (uint64 callId);

    /// @notice Answer a call, as an active operator of its service. Results are counted, not compared.
    function submitResult(uint64 serviceId, uint64 callId, bytes calldata output) external;

    /// @notice Answer several calls of one service: all or none.
    function submitResults(uint64 serviceId, uint64[] calldata callIds, bytes[] calldata outputs) external;

    /// @notice All zero for a call that does not exist.
    function getJobCall(uint64 serviceId, uint64 callId) external view returns (JobCall memory);

    /// @notice All zero for a service that does not exist.
    function getService(uint64 serviceId) external view returns (Service memory);

    function getBlueprintDefinition(uint64 blueprintId) external view returns (BlueprintDefinition memory);

    function getServiceOperators(uint64 serviceId) external view returns (address[] memory);

    function isServiceOperator(uint64 serviceId, address operator) external view returns (bool);

    function isPermittedCaller(uint64 serviceId, address caller) external view returns (bool);

    /// @notice The operators that may answer a quoted call; empty for any other call.
    function getJobQuotedOperators(uint64 serviceId, uint64 callId) external view returns (address[] memory);

    /// @notice What `operator` is paid for a quoted call; 0 for an operator that was not quoted.
    function getJobQuotedPrice(uint64 serviceId, uint64 callId, address operator)
        external
        view
        returns (uint256);
}
