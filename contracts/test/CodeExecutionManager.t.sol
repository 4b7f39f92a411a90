// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {CodeExecutionManager} from "../src/CodeExecutionManager.sol";
import {ICodeExecutionManager} from "../src/interfaces/ICodeExecutionManager.sol";
import {ILocalTangle} from "../src/interfaces/ILocalTangle.sol";
import {ITangleJobs} from "../src/interfaces/ITangleJobs.sol";
import {HastyConsumer, MoodyConsumer, PlainCaller} from "./doubles/MoodyConsumer.sol";
import {TestBase, Vm} from "./TestBase.sol";

/// @notice Answers are brought to the contracts that have asked.
contract CodeExecutionManagerTest is TestBase {
    CodeExecutionManager internal manager;
    MoodyConsumer internal consumer;

    function setUp() public override {
        super.setUp();
        manager = new CodeExecutionManager(address(tangle));
        makeService(address(manager));
        consumer = new MoodyConsumer(tangle);
        tangle.permitCaller(0, address(consumer), true);
    }

    function test_answerIsBrought() public {
        vm.expectEmit(true, true, true, true, address(manager));
        emit ICodeExecutionManager.CallbackExpected(0, 0, address(consumer));
        consumer.submit("inputs");
        assert(_state(0) == ICodeExecutionManager.DeliveryState.Waiting);
        vm.expectEmit(true, true, true, true, address(manager));
        emit ICodeExecutionManager.CallbackDelivered(0, 0, address(consumer));
        respond(operatorA, 0, "output");
        vm.assertEq(consumer.callbacks(), 1);
        vm.assertEq(consumer.lastOutput(), "output");
        vm.assertEq(consumer.lastSender(), address(manager));
        ICodeExecutionManager.Delivery memory delivery = manager.getDelivery(0, 0);
        vm.assertEq(delivery.consumer, address(consumer));
        vm.assertEq(delivery.outputDigest, keccak256("output"));
        assert(delivery.state == ICodeExecutionManager.DeliveryState.Delivered);
    }

    function test_callbackGasIsCapped() public {
        consumer.submit("");
        respond(operatorA, 0, "output");
        assert(consumer.gasSeen() <= manager.CALLBACK_GAS());
        assert(consumer.gasSeen() > manager.CALLBACK_GAS() - 5_000);
    }

    /// @notice People, contracts that have opted out, and contracts that know of no callbacks get none.
    function test_nobodyElseIsCalled() public {
        submit("");
        consumer.optOut();
        consumer.submit("");
        PlainCaller plain = new PlainCaller();
        tangle.permitCaller(0, address(plain), true);
        plain.submit(tangle);
        for (uint64 callId = 0; callId < 3; ++callId) {
            assert(_state(callId) == ICodeExecutionManager.DeliveryState.None);
            respond(operatorA, callId, "output");
            assert(_state(callId) == ICodeExecutionManager.DeliveryState.None);
        }
        vm.assertEq(consumer.callbacks(), 0);
    }

    /// @notice A contract that submits from its constructor has no code yet, and is not called back.
    function test_constructorsAreNotCalledBack() public {
        address made =
            address(uint160(uint256(keccak256(abi.encodePacked(hex"d694", address(this), hex"04")))));
        tangle.permitCaller(0, made, true);
        vm.assertEq(address(new HastyConsumer(tangle)), made);
        assert(_state(0) == ICodeExecutionManager.DeliveryState.None);
    }

    /// @notice Whatever the consumer does, the result stands and the failure is written down.
    function test_failingCallbackBlocksNothing() public {
        MoodyConsumer.Mood[4] memory moods = [
            MoodyConsumer.Mood.RevertWithReason,
            MoodyConsumer.Mood.BurnGas,
            MoodyConsumer.Mood.ReturnBomb,
            MoodyConsumer.Mood.NeedMuchGas
        ];
        for (uint64 i = 0; i < moods.length; ++i) {
            consumer.become(moods[i]);
            consumer.submit("");
            vm.recordLogs();
            respond(operatorA, i, "output");
            Vm.Log[] memory logs = vm.getRecordedLogs();
            vm.assertEq(count(logs, ICodeExecutionManager.CallbackFailed.selector), 1);
            vm.assertEq(count(logs, ITangleJobs.ManagerHookFailed.selector), 0);
            vm.assertEq(tangle.getJobCall(0, i).completed, true);
            assert(_state(i) == ICodeExecutionManager.DeliveryState.Failed);
        }
        vm.assertEq(consumer.callbacks(), 0);
    }

    /// @notice The reason of a failure is kept in the event, cut after 256 bytes.
    function test_failureIsReported() public {
        consumer.become(MoodyConsumer.Mood.RevertWithReason);
        consumer.submit("");
        vm.expectEmit(true, true, true, true, address(manager));
        emit ICodeExecutionManager.CallbackFailed(
            0, 0, address(consumer), abi.encodeWithSelector(MoodyConsumer.NotToday.selector)
        );
        respond(operatorA, 0, "output");
        consumer.become(MoodyConsumer.Mood.ReturnBomb);
        consumer.submit("");
        vm.expectEmit(true, true, true, true, address(manager));
        emit ICodeExecutionManager.CallbackFailed(0, 1, address(consumer), new bytes(256));
        respond(operatorA, 1, "output");
    }

    /// @notice Anybody can bring the same output again.
    function test_anybodyRetries() public {
        _fail();
        consumer.become(MoodyConsumer.Mood.Accept);
        vm.expectEmit(true, true, true, true, address(manager));
        emit ICodeExecutionManager.CallbackDelivered(0, 0, address(consumer));
        vm.prank(stranger);
        manager.retryCallback(0, 0, "output");
        vm.assertEq(consumer.lastOutput(), "output");
        assert(_state(0) == ICodeExecutionManager.DeliveryState.Delivered);
    }

    /// @notice A callback that needs more than a hook can give succeeds in a retry.
    function test_retryHasNoCap() public {
        consumer.become(MoodyConsumer.Mood.NeedMuchGas);
        consumer.submit("");
        respond(operatorA, 0, "output");
        assert(_state(0) == ICodeExecutionManager.DeliveryState.Failed);
        manager.retryCallback(0, 0, "output");
        vm.assertEq(consumer.callbacks(), 1);
    }

    function test_failedRetryChangesNothing() public {
        _fail();
        bytes memory reason = abi.encodeWithSelector(MoodyConsumer.NotToday.selector);
        vm.expectRevert(
            abi.encodeWithSelector(ICodeExecutionManager.CallbackReverted.selector, address(consumer), reason)
        );
        manager.retryCallback(0, 0, "output");
        assert(_state(0) == ICodeExecutionManager.DeliveryState.Failed);
    }

    function test_retryWithOtherOutputFails() public {
        _fail();
        vm.expectRevert(
            abi.encodeWithSelector(
                ICodeExecutionManager.WrongOutput.selector, keccak256("output"), keccak256("forged")
            )
        );
        manager.retryCallback(0, 0, "forged");
    }

    /// @notice Only a failed callback can be retried: not an unknown, a waiting or a delivered one.
    function test_nothingToRetry() public {
        vm.expectRevert(abi.encodeWithSelector(ICodeExecutionManager.NothingToRetry.selector, 0, 0, 0));
        manager.retryCallback(0, 0, "");
        consumer.submit("");
        vm.expectRevert(abi.encodeWithSelector(ICodeExecutionManager.NothingToRetry.selector, 0, 0, 1));
        manager.retryCallback(0, 0, "");
        respond(operatorA, 0, "output");
        vm.expectRevert(abi.encodeWithSelector(ICodeExecutionManager.NothingToRetry.selector, 0, 0, 2));
        manager.retryCallback(0, 0, "output");
    }

    function test_retryWithTooLittleGasFails() public {
        _fail();
        consumer.become(MoodyConsumer.Mood.Accept);
        try manager.retryCallback{gas: 200_000}(0, 0, "output") {
            assert(false);
        } catch (bytes memory reason) {
            assert(bytes4(reason) == ICodeExecutionManager.CallbackReverted.selector);
            assert(this.innerSelector(reason) == ICodeExecutionManager.TooLittleGas.selector);
        }
        assert(_state(0) == ICodeExecutionManager.DeliveryState.Failed);
        manager.retryCallback{gas: 400_000}(0, 0, "output");
    }

    /// @notice Within the callback the tangle contract is locked and the delivery is done already.
    function test_callbackCannotComeBackIn() public {
        consumer.callOut(address(tangle), abi.encodeCall(ITangleJobs.submitJob, (0, 0, "")));
        consumer.submit("");
        respond(operatorA, 0, "output");
        vm.assertEq(consumer.outcome(), false);
        vm.assertEq(consumer.returned(), abi.encodeWithSelector(ILocalTangle.Reentered.selector));

        consumer.callOut(
            address(manager), abi.encodeCall(ICodeExecutionManager.retryCallback, (0, 1, "output"))
        );
        consumer.submit("");
        respond(operatorA, 1, "output");
        vm.assertEq(
            consumer.returned(),
            abi.encodeWithSelector(ICodeExecutionManager.NothingToRetry.selector, 0, 1, 2)
        );
        vm.assertEq(consumer.callbacks(), 2);
    }

    /// @notice A consumer that retries itself while it is being retried is called once.
    function test_retryCannotComeBackIn() public {
        _fail();
        consumer.callOut(
            address(manager), abi.encodeCall(ICodeExecutionManager.retryCallback, (0, 0, "output"))
        );
        manager.retryCallback(0, 0, "output");
        vm.assertEq(consumer.outcome(), false);
        vm.assertEq(consumer.callbacks(), 1);
    }

    /// @notice However little gas the operator sends: the result is refused as a whole, or the callback is
    /// delivered, or it has failed in a way that a retry mends.
    function testFuzz_noGasLimitLosesACallback(uint256 gasLimit) public {
        gasLimit = 30_000 + gasLimit % 900_000;
        bytes memory output = new bytes(2_000);
        consumer.submit("");
        vm.prank(operatorA);
        try tangle.submitResult{gas: gasLimit}(0, 0, output) {
            if (_state(0) == ICodeExecutionManager.DeliveryState.Failed) manager.retryCallback(0, 0, output);
        } catch {
            assert(!tangle.getJobCall(0, 0).completed);
            respond(operatorA, 0, output);
        }
        assert(_state(0) == ICodeExecutionManager.DeliveryState.Delivered);
        vm.assertEq(consumer.lastOutput(), output);
    }

    /// @notice The longest output that public nodes take in a transaction is brought like a short one.
    function test_outputOf128KibIsBrought() public {
        consumer.submit("");
        respond(operatorA, 0, new bytes(128 * 1024));
        vm.assertEq(consumer.callbacks(), 1);
        assert(consumer.gasSeen() > manager.CALLBACK_GAS() - 30_000);
    }

    /// @notice A longer one leaves too little of the hook's gas: the consumer is not called to starve, the
    /// failure says why, and a retry brings the output.
    function test_longerOutputsAreDigested() public {
        bytes memory output = new bytes(192 * 1024);
        consumer.submit("");
        vm.recordLogs();
        respond(operatorA, 0, output);
        Vm.Log memory log = vm.getRecordedLogs()[0];
        vm.assertEq(log.topics[0], ICodeExecutionManager.CallbackFailed.selector);
        assert(bytes4(abi.decode(log.data, (bytes))) == ICodeExecutionManager.TooLittleGas.selector);
        vm.assertEq(consumer.gasSeen(), 0);
        vm.assertEq(manager.getDelivery(0, 0).outputDigest, keccak256(output));
        manager.retryCallback(0, 0, output);
        vm.assertEq(consumer.callbacks(), 1);
    }

    function test_onlyTheTangleIsHeard() public {
        bytes memory refusal = abi.encodeWithSelector(ICodeExecutionManager.NotTangle.selector, address(this));
        vm.expectRevert(refusal);
        manager.onJobCall(0, 0, 0, "");
        vm.expectRevert(refusal);
        manager.onJobResult(0, 0, 0, operatorA, bytes32(0), "");
        vm.expectRevert(refusal);
        manager.onServiceInitialized(0, 0, 0, address(0), new address[](0), 0);
        vm.expectRevert(refusal);
        manager.onServiceTermination(0, address(0));
    }

    function test_tangleMustHaveCode() public {
        vm.expectRevert(abi.encodeWithSelector(ICodeExecutionManager.NotTangle.selector, stranger));
        new CodeExecutionManager(stranger);
    }

    function test_oneResultIsEnough() public view {
        vm.assertEq(manager.getRequiredResultCount(0, 0), 1);
        assert(!manager.requiresAggregation(0, 0));
    }

    /// @dev The selector of the reason within a `CallbackReverted`.
    function innerSelector(bytes calldata reverted) external pure returns (bytes4) {
        (, bytes memory inner) = abi.decode(reverted[4:], (address, bytes));
        return bytes4(inner);
    }

    function _fail() private {
        consumer.become(MoodyConsumer.Mood.RevertWithReason);
        consumer.submit("");
        respond(operatorA, 0, "output");
    }

    function _state(uint64 callId) private view returns (ICodeExecutionManager.DeliveryState) {
        return manager.getDelivery(0, callId).state;
    }
}
