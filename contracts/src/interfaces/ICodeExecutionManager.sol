// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IBlueprintServiceManager} from "./IBlueprintServiceManager.sol";

/// @title The manager of the blueprint whose jobs run code
/// @notice Brings the answer of a job to the contract that has asked for it. A contract opts in by saying,
/// through ERC-165 and when it submits the job, that it is an `IJobResultConsumer`; it cannot do so from its
/// constructor. The callback never blocks the result: it gets `CALLBACK_GAS`, its failure is written down,
/// and since the output's digest is kept, anybody can bring the same output again. Outputs of up to 128 KiB
/// are brought within the gas that a hook has; somewhat longer ones need the retry.
interface ICodeExecutionManager is IBlueprintServiceManager {
    /// @dev None: nobody wants a callback. Waiting: no result yet. Delivered, Failed: the callback has, or
    /// has not, succeeded.
    enum DeliveryState {
        None,
        Waiting,
        Delivered,
        Failed
    }

    /// @param consumer The contract that has submitted the job.
    /// @param outputDigest keccak256 of the output, known once there is a result.
    struct Delivery {
        address consumer;
        DeliveryState state;
        uint8 jobIndex;
        bytes32 outputDigest;
    }

    event CallbackExpected(uint64 indexed serviceId, uint64 indexed callId, address indexed consumer);
    event CallbackDelivered(uint64 indexed serviceId, uint64 indexed callId, address indexed consumer);

    /// @param reason What the consumer reverted with, cut after 256 bytes, or `TooLittleGas` when it was not
    /// called.
    event CallbackFailed(
        uint64 indexed serviceId, uint64 indexed callId, address indexed consumer, bytes reason
    );

    error NotTangle(address sender);
    error NothingToRetry(uint64 serviceId, uint64 callId, DeliveryState state);
    error WrongOutput(bytes32 expected, bytes32 given);
    error CallbackReverted(address consumer, bytes reason);

    /// @notice The transaction has too little gas left to give a callback its due.
    error TooLittleGas(uint256 gasLeft);

    /// @notice Bring a failed callback's output once more, with all the gas of the transaction and at least
    /// `CALLBACK_GAS`. Reverts, and changes nothing, when the consumer reverts again.
    /// @param output The bytes of the result, as in `JobResultSubmitted`.
    function retryCallback(uint64 serviceId, uint64 callId, bytes calldata output) external;

    function getDelivery(uint64 serviceId, uint64 callId) external view returns (Delivery memory);

    /// @notice The only contract whose hooks are heard.
    function tangle() external view returns (address);

    /// @notice The gas that a callback gets with the result.
    function CALLBACK_GAS() external view returns (uint256);
}
