// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC165, IJobResultConsumer} from "../interfaces/IJobResultConsumer.sol";
import {ITangleJobs} from "../interfaces/ITangleJobs.sol";
import {ExecuteJob} from "../libraries/ExecuteJob.sol";

/// @title CodeConsumer
/// @notice An example: asks for a snippet to be run and keeps the beginning of what it printed.
contract CodeConsumer is IJobResultConsumer, IERC165 {
    /// @dev Storing a word costs 22,100 gas, and a callback has 300,000.
    uint256 public constant KEPT_BYTES = 256;

    /// @param stdout The first `KEPT_BYTES` of what was printed; the event holds all of it.
    struct Answer {
        bool arrived;
        uint8 status;
        int32 exitCode;
        bytes stdout;
    }

    ITangleJobs public immutable tangle;
    /// @notice The blueprint's manager: the only account that may bring answers.
    address public immutable manager;
    uint64 public immutable serviceId;

    mapping(uint64 callId => Answer) private _answers;

    event Asked(uint64 indexed callId, string language);
    event Answered(uint64 indexed callId, uint8 status, bytes stdout);

    error NotManager(address sender);
    error UnexpectedService(uint64 serviceId);

    constructor(ITangleJobs tangle_, address manager_, uint64 serviceId_) {
        tangle = tangle_;
        manager = manager_;
        serviceId = serviceId_;
    }

    /// @notice Have `code` run; this contract must be a permitted caller of the service.
    function ask(string calldata language, string calldata code) external payable returns (uint64 callId) {
        callId = tangle.submitJob{value: msg.value}(
            serviceId, ExecuteJob.INDEX, ExecuteJob.snippet(language, code)
        );
        emit Asked(callId, language);
    }

    /// @inheritdoc IJobResultConsumer
    function onJobResult(uint64 service, uint8, uint64 callId, bytes calldata output) external {
        if (msg.sender != manager) revert NotManager(msg.sender);
        if (service != serviceId) revert UnexpectedService(service);
        ExecuteJob.Result memory result = ExecuteJob.decodeResult(output);
        emit Answered(callId, result.status, result.stdout);
        _answers[callId] = Answer(true, result.status, result.exitCode, _head(result.stdout));
    }

    function answer(uint64 callId) external view returns (Answer memory) {
        return _answers[callId];
    }

    function _head(bytes memory text) private pure returns (bytes memory) {
        if (text.length <= KEPT_BYTES) return text;
        bytes memory head = new bytes(KEPT_BYTES);
        for (uint256 i = 0; i < KEPT_BYTES; ++i) {
            head[i] = text[i];
        }
        return head;
    }

    /// @inheritdoc IERC165
    function supportsInterface(bytes4 interfaceId) external pure returns (bool) {
        return interfaceId == type(IJobResultConsumer).interfaceId || interfaceId == type(IERC165).interfaceId;
    }
}
