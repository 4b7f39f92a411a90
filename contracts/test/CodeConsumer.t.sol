// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {CodeExecutionManager} from "../src/CodeExecutionManager.sol";
import {CodeConsumer} from "../src/examples/CodeConsumer.sol";
import {ICodeExecutionManager} from "../src/interfaces/ICodeExecutionManager.sol";
import {ExecuteJob} from "../src/libraries/ExecuteJob.sol";
import {TestBase} from "./TestBase.sol";

/// @notice The example, from question to answer.
contract CodeConsumerTest is TestBase {
    CodeExecutionManager internal manager;
    CodeConsumer internal consumer;

    function setUp() public override {
        super.setUp();
        manager = new CodeExecutionManager(address(tangle));
        makeService(address(manager));
        consumer = new CodeConsumer(tangle, address(manager), 0);
        tangle.permitCaller(0, address(consumer), true);
    }

    function test_answerArrives() public {
        uint64 callId = consumer.ask("python", "print(6 * 7)");
        assert(!consumer.answer(callId).arrived);
        respond(operatorA, callId, _result("42\n"));
        CodeConsumer.Answer memory answer = consumer.answer(callId);
        assert(answer.arrived && answer.status == ExecuteJob.SUCCESS && answer.exitCode == 0);
        vm.assertEq(answer.stdout, "42\n");
    }

    /// @notice 8 KiB of stdout and of stderr and a receipt fit into the callback's gas; the event has it all.
    function test_longAnswerIsCutButFits() public {
        uint64 callId = consumer.ask("python", "print('x' * 8192)");
        bytes memory printed = new bytes(8192);
        respond(operatorA, callId, _result(printed, printed, new bytes(1024)));
        vm.assertEq(consumer.answer(callId).stdout.length, 256);
        assert(manager.getDelivery(0, callId).state == ICodeExecutionManager.DeliveryState.Delivered);
    }

    function test_onlyTheManagerAnswers() public {
        vm.expectRevert(abi.encodeWithSelector(CodeConsumer.NotManager.selector, stranger));
        vm.prank(stranger);
        consumer.onJobResult(0, 0, 0, _result("forged"));
    }

    function test_otherServicesAreNotHeard() public {
        vm.expectRevert(abi.encodeWithSelector(CodeConsumer.UnexpectedService.selector, 9));
        vm.prank(address(manager));
        consumer.onJobResult(9, 0, 0, _result("forged"));
    }

    function test_interfaces() public view {
        assert(consumer.supportsInterface(0x01ffc9a7));
        assert(!consumer.supportsInterface(0xffffffff));
    }

    function _result(bytes memory stdout) private pure returns (bytes memory) {
        return _result(stdout, "", "");
    }

    function _result(bytes memory stdout, bytes memory stderr, bytes memory receipt)
        private
        pure
        returns (bytes memory)
    {
        ExecuteJob.Result memory r;
        r.version = ExecuteJob.VERSION;
        (r.stdout, r.stderr, r.receipt) = (stdout, stderr, receipt);
        r.stdoutSize = uint64(stdout.length);
        r.runtime = "python 3.13.5";
        return ExecuteJob.encode(r);
    }
}
