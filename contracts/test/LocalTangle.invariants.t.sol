// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {LocalTangle} from "../src/LocalTangle.sol";
import {JobCall, JobSpec, Pricing} from "../src/interfaces/TangleTypes.sol";
import {ScriptedManager} from "./doubles/ScriptedManager.sol";
import {TestBase, Vm} from "./TestBase.sol";

/// @notice Submits and answers at random, and keeps its own books.
contract TangleActor {
    uint256 public constant RATE = 1003;
    uint256 internal constant OPERATORS = 5;

    LocalTangle public immutable tangle;
    ScriptedManager public immutable manager;
    uint64 public calls;
    uint256 public paidIn;
    uint256 public completions;
    mapping(uint64 callId => mapping(address => bool)) public answered;
    mapping(uint64 callId => uint32) public answers;

    constructor(LocalTangle tangle_, ScriptedManager manager_) payable {
        (tangle, manager) = (tangle_, manager_);
        tangle_.registerBlueprint(address(manager_), new JobSpec[](1), Pricing.EventDriven, RATE);
        address[] memory operators = new address[](2);
        (operators[0], operators[1]) = (operator(0), operator(1));
        tangle_.activateService(0, operators, new address[](0), 0);
    }

    function operator(uint256 seed) public pure returns (address) {
        return address(uint160(0x0FE0 + seed % OPERATORS));
    }

    function submit(bytes calldata inputs) external {
        assert(tangle.submitJob{value: RATE}(0, 0, inputs) == calls);
        ++calls;
        paidIn += RATE;
    }

    /// @dev Whether it is accepted must follow from the books alone.
    function answer(uint64 callId, uint256 seed, bytes calldata output) external {
        if (calls == 0) return;
        callId %= calls;
        address sender = operator(seed);
        bool isOperator = tangle.isServiceOperator(0, sender);
        bool isCompleted = tangle.getJobCall(0, callId).completed;
        bool expected = isOperator && !isCompleted && !answered[callId][sender];
        Vm(address(uint160(uint256(keccak256("hevm cheat code"))))).prank(sender);
        try tangle.submitResult(0, callId, output) {
            assert(expected);
            answered[callId][sender] = true;
            ++answers[callId];
            if (tangle.getJobCall(0, callId).completed) ++completions;
        } catch {
            assert(!expected);
        }
    }

    function setOperator(uint256 seed, bool active) external {
        address who = operator(seed);
        if (!active && tangle.getServiceOperators(0).length == 1) return;
        tangle.setOperator(0, who, active);
    }

    function requireResults(uint32 number) external {
        manager.require_(ScriptedManager.Way.Answer, number % 4);
    }

    function failHook(bool fails) external {
        manager.onResultDo(fails ? ScriptedManager.Way.RevertWithReason : ScriptedManager.Way.Answer);
    }
}

/// @notice What holds after any sequence of calls.
contract LocalTangleInvariants is TestBase {
    TangleActor internal actor;

    function setUp() public override {
        super.setUp();
        actor = new TangleActor{value: 1 ether}(tangle, new ScriptedManager());
    }

    function targetContracts() external view returns (address[] memory) {
        return list(address(actor));
    }

    /// @notice What came in is what was paid out, what is set aside and what open calls still hold.
    function invariant_moneyIsConserved() external view {
        uint256 held = 0;
        for (uint64 callId = 0; callId < actor.calls(); ++callId) {
            JobCall memory call = tangle.getJobCall(0, callId);
            if (!call.completed) held += call.payment;
        }
        uint256 out = 0;
        for (uint256 i = 0; i < 5; ++i) {
            address operator = actor.operator(i);
            out += operator.balance;
            held += tangle.pendingRewards(operator);
        }
        vm.assertEq(address(tangle).balance, held);
        vm.assertEq(out + held, actor.paidIn());
    }

    /// @notice Results are counted right, and each call completes at most once.
    function invariant_resultsAreCounted() external view {
        uint256 completed = 0;
        for (uint64 callId = 0; callId < actor.calls(); ++callId) {
            JobCall memory call = tangle.getJobCall(0, callId);
            vm.assertEq(call.resultCount, actor.answers(callId));
            if (call.completed) ++completed;
        }
        vm.assertEq(completed, actor.completions());
    }
}
