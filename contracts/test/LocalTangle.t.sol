// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IBlueprintServiceManager} from "../src/interfaces/IBlueprintServiceManager.sol";
import {ITangleJobs} from "../src/interfaces/ITangleJobs.sol";
import {JobCall, Pricing} from "../src/interfaces/TangleTypes.sol";
import {ScriptedManager} from "./doubles/ScriptedManager.sol";
import {TestBase, Vm} from "./TestBase.sol";

/// @notice Submitting jobs and answering them.
contract LocalTangleTest is TestBase {
    ScriptedManager internal manager;

    function setUp() public override {
        super.setUp();
        manager = new ScriptedManager();
        makeService(address(manager));
    }

    /// @notice `JobSubmitted` has three topics, and its data is (uint8, address, bytes).
    function test_submitEmitsThreeTopics() public {
        vm.recordLogs();
        submit("inputs");
        Vm.Log memory log = vm.getRecordedLogs()[0];
        vm.assertEq(log.topics.length, 3);
        vm.assertEq(log.topics[0], ITangleJobs.JobSubmitted.selector);
        vm.assertEq(uint256(log.topics[1]), 0);
        vm.assertEq(uint256(log.topics[2]), 0);
        vm.assertEq(log.data, abi.encode(uint8(0), caller, bytes("inputs")));
    }

    /// @notice Call ids are sequential from 0 in each service.
    function test_callIdsAreSequentialInEachService() public {
        makeService(address(0));
        vm.assertEq(submit("a"), 0);
        vm.assertEq(submit("b"), 1);
        vm.prank(caller);
        vm.assertEq(tangle.submitJob(1, 0, "c"), 0);
    }

    function test_getJobCallTellsWhatWasSubmitted() public {
        submit("inputs");
        JobCall memory call = tangle.getJobCall(0, 0);
        vm.assertEq(call.jobIndex, 0);
        vm.assertEq(call.caller, caller);
        vm.assertEq(call.createdAt, block.timestamp);
        vm.assertEq(call.resultCount, 0);
        vm.assertEq(call.completed, false);
        vm.assertEq(call.isRFQ, false);
        vm.assertEq(call.payment, 0);
    }

    function test_submitToUnknownServiceFails() public {
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.ServiceNotFound.selector, 7));
        tangle.submitJob(7, 0, "");
    }

    function test_submitByStrangerFails() public {
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.NotPermittedCaller.selector, 0, stranger));
        vm.prank(stranger);
        tangle.submitJob(0, 0, "");
    }

    function test_submitOfUnknownJobFails() public {
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.InvalidJobIndex.selector, 1));
        vm.prank(caller);
        tangle.submitJob(0, 1, "");
    }

    /// @notice Value sent where none is due comes back with the refusal.
    function test_submitWithUndueValueFails() public {
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.InvalidMsgValue.selector, 0, 1));
        vm.prank(caller);
        tangle.submitJob{value: 1}(0, 0, "");
    }

    function test_managerSeesTheCallAndItsInputs() public {
        submit("inputs");
        vm.assertEq(manager.calls(), 1);
        vm.assertEq(manager.lastInputs(), "inputs");
    }

    /// @notice A hook gets at most 500,000 gas, however much the transaction has.
    function test_hookGasIsCapped() public {
        submit("");
        assert(manager.gasSeen() <= 500_000 && manager.gasSeen() > 490_000);
    }

    function test_managerRejectsWithReason() public {
        manager.onCallDo(ScriptedManager.Way.RevertWithReason);
        bytes memory reason = abi.encodeWithSelector(ScriptedManager.Scripted.selector);
        vm.expectRevert(
            abi.encodeWithSelector(ITangleJobs.ManagerReverted.selector, address(manager), reason)
        );
        submit("");
    }

    function test_managerRejectsWithoutReason() public {
        manager.onCallDo(ScriptedManager.Way.RevertWithoutReason);
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.ManagerRejected.selector, address(manager)));
        submit("");
    }

    /// @notice A rejected submission leaves no call behind.
    function test_rejectedSubmissionTakesNoCallId() public {
        manager.onCallDo(ScriptedManager.Way.RevertWithoutReason);
        try tangle.submitJob(0, 0, "") {
            assert(false);
        } catch {}
        manager.onCallDo(ScriptedManager.Way.Answer);
        vm.assertEq(submit(""), 0);
    }

    function test_resultIsEmittedAndCompletesTheCall() public {
        submit("inputs");
        vm.recordLogs();
        respond(operatorA, 0, "output");
        Vm.Log[] memory logs = vm.getRecordedLogs();
        vm.assertEq(logs.length, 2);
        vm.assertEq(logs[0].topics.length, 4);
        vm.assertEq(logs[0].topics[0], ITangleJobs.JobResultSubmitted.selector);
        vm.assertEq(uint256(logs[0].topics[3]), uint160(operatorA));
        vm.assertEq(logs[0].data, abi.encode(bytes("output")));
        vm.assertEq(logs[1].topics[0], ITangleJobs.JobCompleted.selector);
        JobCall memory call = tangle.getJobCall(0, 0);
        vm.assertEq(call.resultCount, 1);
        vm.assertEq(call.completed, true);
    }

    /// @notice The manager is given the hash of the inputs, not the inputs.
    function test_managerSeesTheResult() public {
        submit("inputs");
        respond(operatorB, 0, "output");
        vm.assertEq(manager.lastInputsHash(), keccak256("inputs"));
        vm.assertEq(manager.lastOutput(), "output");
        vm.assertEq(manager.lastOperator(), operatorB);
    }

    /// @notice A failing `onJobResult` is reported and blocks nothing.
    function test_failingResultHookOnlyReports() public {
        manager.onResultDo(ScriptedManager.Way.RevertWithReason);
        submit("");
        vm.expectEmit(true, true, true, true, address(tangle));
        emit ITangleJobs.ManagerHookFailed(
            address(manager),
            IBlueprintServiceManager.onJobResult.selector,
            abi.encodeWithSelector(ScriptedManager.Scripted.selector)
        );
        respond(operatorA, 0, "output");
        vm.assertEq(tangle.getJobCall(0, 0).completed, true);
    }

    /// @notice A hook that burns its gas costs no more than the cap.
    function test_gasBurningHookBlocksNothing() public {
        manager.onResultDo(ScriptedManager.Way.BurnGas);
        submit("");
        uint256 before = gasleft();
        respond(operatorA, 0, "output");
        assert(before - gasleft() < 700_000);
        vm.assertEq(tangle.getJobCall(0, 0).completed, true);
    }

    function test_answerToUnknownServiceFails() public {
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.ServiceNotFound.selector, 7));
        tangle.submitResult(7, 0, "");
    }

    function test_answerToUnknownCallFails() public {
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.JobCallNotFound.selector, 0, 0));
        respond(operatorA, 0, "");
    }

    /// @notice As on the deployed protocol, views of what does not exist return zeros.
    function test_viewsOfTheUnknownAreZero() public view {
        vm.assertEq(tangle.getJobCall(0, 3).caller, address(0));
        vm.assertEq(tangle.getJobCall(9, 0).caller, address(0));
        vm.assertEq(tangle.getService(9).owner, address(0));
    }

    function test_answerByStrangerFails() public {
        submit("");
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.OperatorNotInService.selector, 0, stranger));
        respond(stranger, 0, "");
    }

    function test_answerByInactiveOperatorFails() public {
        submit("");
        vm.prank(operatorA);
        tangle.setActive(false);
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.OperatorNotActive.selector, operatorA));
        respond(operatorA, 0, "");
    }

    function test_secondOperatorComesTooLate() public {
        submit("");
        respond(operatorA, 0, "");
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.JobAlreadyCompleted.selector, 0, 0));
        respond(operatorB, 0, "");
    }

    function test_sameOperatorAnswersOnce() public {
        manager.require_(ScriptedManager.Way.Answer, 2);
        submit("");
        respond(operatorA, 0, "");
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.ResultAlreadySubmitted.selector, 0, 0, operatorA));
        respond(operatorA, 0, "");
    }

    /// @notice Results are counted, not compared: different bytes complete a call that requires two.
    function test_differentResultsCompleteTogether() public {
        manager.require_(ScriptedManager.Way.Answer, 2);
        submit("");
        respond(operatorA, 0, "one");
        vm.assertEq(tangle.getJobCall(0, 0).completed, false);
        respond(operatorB, 0, "another");
        vm.assertEq(tangle.getJobCall(0, 0).completed, true);
    }

    /// @notice A required count of 0, and one that cannot be learned, complete on the first result.
    function test_requiredCountDefaultsToOne() public {
        ScriptedManager.Way[4] memory ways = [
            ScriptedManager.Way.Answer,
            ScriptedManager.Way.RevertWithReason,
            ScriptedManager.Way.BurnGas,
            ScriptedManager.Way.AnswerTooShort
        ];
        for (uint64 i = 0; i < ways.length; ++i) {
            manager.require_(ways[i], 0);
            submit("");
            respond(operatorA, i, "");
            vm.assertEq(tangle.getJobCall(0, i).completed, true);
        }
    }

    /// @notice Without a clear "no" to aggregation, a plain result is refused.
    function test_aggregationFailsClosed() public {
        submit("");
        ScriptedManager.Way[4] memory ways = [
            ScriptedManager.Way.Answer,
            ScriptedManager.Way.RevertWithReason,
            ScriptedManager.Way.BurnGas,
            ScriptedManager.Way.AnswerTooShort
        ];
        for (uint256 i = 0; i < ways.length; ++i) {
            manager.aggregate(ways[i], true);
            vm.expectRevert(abi.encodeWithSelector(ITangleJobs.AggregationRequired.selector, 0, 0));
            respond(operatorA, 0, "");
        }
        manager.aggregate(ScriptedManager.Way.Answer, false);
        respond(operatorA, 0, "");
    }

    /// @notice Each rule of acceptance is only reached when the ones before it hold.
    function test_orderOfAcceptance() public {
        submit("");
        respond(operatorA, 0, "");
        // Broken at once: aggregation, operator, completed, answered before.
        manager.aggregate(ScriptedManager.Way.Answer, true);
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.AggregationRequired.selector, 0, 0));
        respond(stranger, 0, "");
        manager.aggregate(ScriptedManager.Way.Answer, false);
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.OperatorNotInService.selector, 0, stranger));
        respond(stranger, 0, "");
        vm.prank(operatorA);
        tangle.setActive(false);
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.OperatorNotActive.selector, operatorA));
        respond(operatorA, 0, "");
        vm.prank(operatorA);
        tangle.setActive(true);
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.JobAlreadyCompleted.selector, 0, 0));
        respond(operatorA, 0, "");
        tangle.terminateService(0);
        manager.aggregate(ScriptedManager.Way.Answer, true);
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.ServiceNotActive.selector, 0));
        respond(stranger, 0, "");
    }

    /// @notice A call can be answered in the last second of the service's life and not after it.
    function test_serviceExpires() public {
        makeService(address(0), Pricing.PayOnce, 0, 100, "", "");
        vm.startPrank(caller);
        tangle.submitJob(1, 0, "");
        tangle.submitJob(1, 0, "");
        vm.stopPrank();
        vm.warp(block.timestamp + 100);
        vm.prank(operatorA);
        tangle.submitResult(1, 0, "");
        vm.warp(block.timestamp + 1);
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.ServiceExpired.selector, 1));
        vm.prank(operatorA);
        tangle.submitResult(1, 1, "");
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.ServiceExpired.selector, 1));
        vm.prank(caller);
        tangle.submitJob(1, 0, "");
    }

    function test_terminatedServiceTakesNothing() public {
        submit("");
        tangle.terminateService(0);
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.ServiceNotActive.selector, 0));
        submit("");
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.ServiceNotActive.selector, 0));
        respond(operatorA, 0, "");
    }

    function test_batchAnswersAll() public {
        submit("a");
        submit("b");
        vm.recordLogs();
        _batch(operatorA, 0, 1);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        vm.assertEq(count(logs, ITangleJobs.JobResultSubmitted.selector), 2);
        vm.assertEq(count(logs, ITangleJobs.JobCompleted.selector), 2);
    }

    /// @notice One bad entry undoes the whole batch.
    function test_batchIsAllOrNothing() public {
        submit("a");
        submit("b");
        respond(operatorB, 1, "");
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.JobAlreadyCompleted.selector, 0, 1));
        _batch(operatorA, 0, 1);
        vm.assertEq(tangle.getJobCall(0, 0).resultCount, 0);
    }

    /// @notice A batch cannot answer one call twice.
    function test_batchWithADoubleFails() public {
        submit("a");
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.JobAlreadyCompleted.selector, 0, 0));
        _batch(operatorA, 0, 0);
    }

    function test_batchOfUnequalLengthsFails() public {
        vm.expectRevert(ITangleJobs.LengthMismatch.selector);
        tangle.submitResults(0, new uint64[](2), new bytes[](1));
    }

    /// @notice Any bytes go in and come out unchanged when there are no schemas.
    function testFuzz_anyBytesPass(bytes calldata inputs, bytes calldata output) public {
        vm.recordLogs();
        uint64 callId = submit(inputs);
        respond(operatorA, callId, output);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        (,, bytes memory seen) = abi.decode(logs[0].data, (uint8, address, bytes));
        vm.assertEq(seen, inputs);
        vm.assertEq(abi.decode(logs[1].data, (bytes)), output);
        vm.assertEq(manager.lastInputsHash(), keccak256(inputs));
    }

    function _batch(address operator, uint64 first, uint64 second) private {
        uint64[] memory callIds = new uint64[](2);
        (callIds[0], callIds[1]) = (first, second);
        vm.prank(operator);
        tangle.submitResults(0, callIds, new bytes[](2));
    }
}
