// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IBlueprintServiceManager} from "../../src/interfaces/IBlueprintServiceManager.sol";

/// @notice A manager that answers and fails as it is told, and remembers what it was given.
contract ScriptedManager is IBlueprintServiceManager {
    enum Way {
        Answer,
        RevertWithReason,
        RevertWithoutReason,
        BurnGas,
        AnswerTooShort
    }

    error Scripted();

    Way public callWay;
    Way public resultWay;
    Way public aggregationWay;
    Way public countWay;
    Way public initWay;
    bool public aggregation;
    uint32 public required = 1;

    uint256 public calls;
    uint256 public results;
    uint256 public gasSeen;
    bytes public lastInputs;
    bytes public lastOutput;
    bytes32 public lastInputsHash;
    address public lastOperator;

    function onCallDo(Way way) external {
        callWay = way;
    }

    function onResultDo(Way way) external {
        resultWay = way;
    }

    function onInitDo(Way way) external {
        initWay = way;
    }

    function aggregate(Way way, bool value) external {
        (aggregationWay, aggregation) = (way, value);
    }

    function require_(Way way, uint32 value) external {
        (countWay, required) = (way, value);
    }

    function onServiceInitialized(uint64, uint64, uint64, address, address[] calldata, uint64) external view {
        _perform(initWay);
    }

    function onServiceTermination(uint64, address) external view {
        _perform(initWay);
    }

    function onJobCall(uint64, uint8, uint64, bytes calldata inputs) external payable {
        gasSeen = gasleft();
        _perform(callWay);
        ++calls;
        lastInputs = inputs;
    }

    function onJobResult(uint64, uint8, uint64, address operator, bytes32 inputsHash, bytes calldata outputs)
        external
        payable
    {
        _perform(resultWay);
        ++results;
        (lastOperator, lastInputsHash, lastOutput) = (operator, inputsHash, outputs);
    }

    function getRequiredResultCount(uint64, uint8) external view returns (uint32) {
        _perform(countWay);
        return required;
    }

    function requiresAggregation(uint64, uint8) external view returns (bool) {
        _perform(aggregationWay);
        return aggregation;
    }

    function getAggregationThreshold(uint64, uint8) external pure returns (uint16, uint8) {
        return (0, 0);
    }

    function _perform(Way way) private pure {
        if (way == Way.RevertWithReason) revert Scripted();
        assembly ("memory-safe") {
            switch way
            case 2 { revert(0, 0) }
            case 3 { invalid() }
            case 4 { return(0, 31) }
        }
    }
}
