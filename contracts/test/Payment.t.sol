// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ILocalTangle} from "../src/interfaces/ILocalTangle.sol";
import {ITangleJobs} from "../src/interfaces/ITangleJobs.sol";
import {Pricing} from "../src/interfaces/TangleTypes.sol";
import {TestBase} from "./TestBase.sol";

/// @notice An operator that can be told to refuse money, or to burn the gas that it is given.
contract MoodyOperator {
    bool public refuses = true;

    function refuse(bool value) external {
        refuses = value;
    }

    function answer(ITangleJobs tangle, uint64 callId) external {
        tangle.submitResult(0, callId, "");
    }

    function claim(ILocalTangle tangle) external {
        tangle.claimRewards();
    }

    receive() external payable {
        while (refuses) {}
    }
}

/// @notice Event-driven payment: in at submission, out at completion.
contract PaymentTest is TestBase {
    uint256 internal constant RATE = 1001;

    function setUp() public override {
        super.setUp();
        makeService(address(0), Pricing.EventDriven, RATE, 0, "", "");
    }

    function test_exactRateIsDue() public {
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.InvalidMsgValue.selector, RATE, 0));
        submit("");
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.InvalidMsgValue.selector, RATE, RATE + 1));
        vm.prank(caller);
        tangle.submitJob{value: RATE + 1}(0, 0, "");
        _pay();
        vm.assertEq(tangle.getJobCall(0, 0).payment, RATE);
        vm.assertEq(address(tangle).balance, RATE);
    }

    /// @notice The rest of a division goes to the operator that completed the call.
    function test_operatorsShareEqually() public {
        _pay();
        vm.expectEmit(true, true, true, true, address(tangle));
        emit ILocalTangle.OperatorPaid(0, 0, operatorA, 500);
        vm.expectEmit(true, true, true, true, address(tangle));
        emit ILocalTangle.OperatorPaid(0, 0, operatorB, 501);
        respond(operatorB, 0, "");
        vm.assertEq(operatorA.balance, 500);
        vm.assertEq(operatorB.balance, 501);
        vm.assertEq(address(tangle).balance, 0);
    }

    /// @notice An operator that cannot receive is owed its share, and blocks neither result nor the others.
    function test_failingTransferIsSetAside() public {
        MoodyOperator moody = new MoodyOperator();
        tangle.setOperator(0, address(moody), true);
        tangle.setOperator(0, operatorB, false);
        _pay();
        moody.answer(tangle, 0);
        vm.assertEq(tangle.getJobCall(0, 0).completed, true);
        vm.assertEq(operatorA.balance, 500);
        vm.assertEq(tangle.pendingRewards(address(moody)), 501);
        vm.expectRevert(
            abi.encodeWithSelector(ILocalTangle.RewardTransferFailed.selector, address(moody), 501)
        );
        this.claimWithLittleGas(moody);
        moody.refuse(false);
        moody.claim(tangle);
        vm.assertEq(address(moody).balance, 501);
        vm.assertEq(tangle.pendingRewards(address(moody)), 0);
        moody.claim(tangle);
        vm.assertEq(address(moody).balance, 501);
    }

    function claimWithLittleGas(MoodyOperator moody) external {
        moody.claim{gas: 500_000}(tangle);
    }

    function _pay() private {
        vm.prank(caller);
        tangle.submitJob{value: RATE}(0, 0, "");
    }
}
