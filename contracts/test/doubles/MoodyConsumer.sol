// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC165, IJobResultConsumer} from "../../src/interfaces/IJobResultConsumer.sol";
import {ITangleJobs} from "../../src/interfaces/ITangleJobs.sol";

/// @notice A consumer that takes its callback in the way that it is told.
contract MoodyConsumer is IJobResultConsumer, IERC165 {
    enum Mood {
        Accept,
        RevertWithReason,
        BurnGas,
        ReturnBomb,
        NeedMuchGas,
        CallOut
    }

    error NotToday();

    ITangleJobs public immutable tangle;
    Mood public mood;
    bool public wantsCallbacks = true;
    address public target;
    bytes public data;

    uint256 public callbacks;
    uint256 public gasSeen;
    bytes public lastOutput;
    uint64 public lastCallId;
    address public lastSender;
    bool public outcome;
    bytes public returned;

    constructor(ITangleJobs tangle_) {
        tangle = tangle_;
    }

    function become(Mood mood_) external {
        mood = mood_;
    }

    function optOut() external {
        wantsCallbacks = false;
    }

    function callOut(address target_, bytes calldata data_) external {
        (mood, target, data) = (Mood.CallOut, target_, data_);
    }

    function submit(bytes calldata inputs) external returns (uint64) {
        return tangle.submitJob(0, 0, inputs);
    }

    function onJobResult(uint64, uint8, uint64 callId, bytes calldata output) external {
        gasSeen = gasleft();
        if (mood == Mood.RevertWithReason) revert NotToday();
        if (mood == Mood.BurnGas) {
            while (true) {}
        }
        if (mood == Mood.ReturnBomb) {
            assembly ("memory-safe") {
                revert(mload(0x40), 200000)
            }
        }
        if (mood == Mood.NeedMuchGas) {
            uint256 start = gasleft();
            while (start - gasleft() < 400_000) {}
        }
        if (mood == Mood.CallOut) (outcome, returned) = target.call(data);
        ++callbacks;
        (lastCallId, lastSender) = (callId, msg.sender);
        if (output.length <= 4096) lastOutput = output;
    }

    function supportsInterface(bytes4 interfaceId) external view returns (bool) {
        return wantsCallbacks && interfaceId == type(IJobResultConsumer).interfaceId;
    }
}

/// @notice A contract that submits jobs and has never heard of callbacks.
contract PlainCaller {
    fallback(bytes calldata) external returns (bytes memory) {
        return new bytes(100_000);
    }

    function submit(ITangleJobs tangle) external {
        tangle.submitJob(0, 0, "");
    }
}

/// @notice A contract that submits while it is still being made.
contract HastyConsumer {
    constructor(ITangleJobs tangle) {
        tangle.submitJob(0, 0, "");
    }

    function supportsInterface(bytes4) external pure returns (bool) {
        return true;
    }
}
