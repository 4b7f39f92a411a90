// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IBlueprintServiceManager} from "./interfaces/IBlueprintServiceManager.sol";
import {ICodeExecutionManager} from "./interfaces/ICodeExecutionManager.sol";
import {IERC165, IJobResultConsumer} from "./interfaces/IJobResultConsumer.sol";
import {ITangleJobs} from "./interfaces/ITangleJobs.sol";

/// @title CodeExecutionManager
/// @notice The manager of the blueprint whose jobs run code. See `ICodeExecutionManager`.
/// @dev A delivery's state is written before the consumer is called, so a consumer that calls back finds the
/// delivery done.
contract CodeExecutionManager is ICodeExecutionManager {
    /// @inheritdoc ICodeExecutionManager
    uint256 public constant CALLBACK_GAS = 300_000;
    /// @dev For asking a caller whether it wants to be called back, as ERC-165 advises.
    uint256 private constant INTERFACE_GAS = 30_000;
    /// @dev What is left for writing down how a callback ended.
    uint256 private constant RESERVE_GAS = 20_000;
    uint256 private constant MAX_REASON_BYTES = 256;

    /// @inheritdoc ICodeExecutionManager
    address public immutable tangle;

    mapping(uint64 serviceId => mapping(uint64 callId => Delivery)) private _deliveries;

    modifier onlyTangle() {
        if (msg.sender != tangle) revert NotTangle(msg.sender);
        _;
    }

    constructor(address tangle_) {
        if (tangle_.code.length == 0) revert NotTangle(tangle_);
        tangle = tangle_;
    }

    /// @inheritdoc IBlueprintServiceManager
    function onJobCall(uint64 serviceId, uint8, uint64 callId, bytes calldata) external payable onlyTangle {
        address caller = ITangleJobs(tangle).getJobCall(serviceId, callId).caller;
        if (!_wantsCallback(caller)) return;
        Delivery storage delivery = _deliveries[serviceId][callId];
        delivery.consumer = caller;
        delivery.state = DeliveryState.Waiting;
        emit CallbackExpected(serviceId, callId, caller);
    }

    /// @inheritdoc IBlueprintServiceManager
    function onJobResult(uint64 serviceId, uint8 job, uint64 callId, address, bytes32, bytes calldata outputs)
        external
        payable
        onlyTangle
    {
        Delivery storage delivery = _deliveries[serviceId][callId];
        if (delivery.state != DeliveryState.Waiting) return;
        delivery.jobIndex = job;
        delivery.state = DeliveryState.Delivered;
        delivery.outputDigest = keccak256(outputs);
        (bool ok, bytes memory reason) = _callBack(delivery, CALLBACK_GAS, serviceId, callId, outputs);
        if (ok) {
            emit CallbackDelivered(serviceId, callId, delivery.consumer);
        } else {
            delivery.state = DeliveryState.Failed;
            emit CallbackFailed(serviceId, callId, delivery.consumer, reason);
        }
    }

    /// @inheritdoc ICodeExecutionManager
    function retryCallback(uint64 serviceId, uint64 callId, bytes calldata output) external {
        Delivery storage delivery = _deliveries[serviceId][callId];
        if (delivery.state != DeliveryState.Failed) revert NothingToRetry(serviceId, callId, delivery.state);
        bytes32 digest = keccak256(output);
        if (digest != delivery.outputDigest) revert WrongOutput(delivery.outputDigest, digest);
        delivery.state = DeliveryState.Delivered;
        (bool ok, bytes memory reason) = _callBack(delivery, gasleft(), serviceId, callId, output);
        if (!ok) revert CallbackReverted(delivery.consumer, reason);
        emit CallbackDelivered(serviceId, callId, delivery.consumer);
    }

    /// @inheritdoc ICodeExecutionManager
    function getDelivery(uint64 serviceId, uint64 callId) external view returns (Delivery memory) {
        return _deliveries[serviceId][callId];
    }

    /// @inheritdoc IBlueprintServiceManager
    function onServiceInitialized(uint64, uint64, uint64, address, address[] calldata, uint64)
        external
        onlyTangle
    {}

    /// @inheritdoc IBlueprintServiceManager
    function onServiceTermination(uint64, address) external onlyTangle {}

    /// @inheritdoc IBlueprintServiceManager
    function getRequiredResultCount(uint64, uint8) external pure returns (uint32) {
        return 1;
    }

    /// @inheritdoc IBlueprintServiceManager
    function requiresAggregation(uint64, uint8) external pure returns (bool) {
        return false;
    }

    /// @inheritdoc IBlueprintServiceManager
    function getAggregationThreshold(uint64, uint8) external pure returns (uint16, uint8) {
        return (6_667, 0);
    }

    /// @dev Reads one word of the answer at most, so that no caller can make its submission expensive.
    function _wantsCallback(address account) private view returns (bool wants) {
        if (account.code.length == 0) return false;
        bytes memory question =
            abi.encodeCall(IERC165.supportsInterface, (type(IJobResultConsumer).interfaceId));
        assembly ("memory-safe") {
            let ok := staticcall(INTERFACE_GAS, account, add(question, 0x20), mload(question), 0x00, 0x20)
            wants := and(and(ok, gt(returndatasize(), 0x1f)), eq(mload(0x00), 1))
        }
    }

    /// @dev Copies at most `MAX_REASON_BYTES` of what a failing consumer returns.
    function _callBack(
        Delivery storage delivery,
        uint256 gasLimit,
        uint64 serviceId,
        uint64 callId,
        bytes calldata output
    ) private returns (bool ok, bytes memory reason) {
        address consumer = delivery.consumer;
        bytes memory data =
            abi.encodeCall(IJobResultConsumer.onJobResult, (serviceId, delivery.jobIndex, callId, output));
        reason = new bytes(MAX_REASON_BYTES);
        // A call gets at most 63/64 of what is left: with less than this the consumer would starve, and
        // nobody could tell that from a failure of its own.
        if (gasleft() < (CALLBACK_GAS * 64) / 63 + RESERVE_GAS) {
            return (false, abi.encodeWithSelector(TooLittleGas.selector, gasleft()));
        }
        assembly ("memory-safe") {
            ok := call(gasLimit, consumer, 0, add(data, 0x20), mload(data), 0, 0)
            let size := returndatasize()
            if gt(size, MAX_REASON_BYTES) { size := MAX_REASON_BYTES }
            returndatacopy(add(reason, 0x20), 0, size)
            mstore(reason, size)
        }
    }
}
