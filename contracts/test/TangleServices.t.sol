// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IBlueprintServiceManager} from "../src/interfaces/IBlueprintServiceManager.sol";
import {ILocalTangle} from "../src/interfaces/ILocalTangle.sol";
import {ITangleJobs} from "../src/interfaces/ITangleJobs.sol";
import {
    BlueprintDefinition,
    Confidentiality,
    JobSpec,
    Pricing,
    Service,
    ServiceStatus
} from "../src/interfaces/TangleTypes.sol";
import {ScriptedManager} from "./doubles/ScriptedManager.sol";
import {TestBase} from "./TestBase.sol";

/// @notice Making blueprints and services, and looking at them.
contract TangleServicesTest is TestBase {
    bytes internal constant STRING_FIELD = hex"0200011100000000046e616d65";

    function test_activationIsAnnounced() public {
        JobSpec[] memory jobs = new JobSpec[](1);
        uint64 blueprintId = tangle.registerBlueprint(address(0), jobs, Pricing.PayOnce, 0);
        vm.expectEmit(true, true, true, true, address(tangle));
        emit ITangleJobs.ServiceActivated(0, 0, blueprintId, Confidentiality.Any);
        tangle.activateService(blueprintId, list(operatorA), list(caller), 60);
        Service memory service = tangle.getService(0);
        vm.assertEq(service.blueprintId, blueprintId);
        vm.assertEq(service.owner, address(this));
        vm.assertEq(service.createdAt, block.timestamp);
        vm.assertEq(service.ttl, 60);
        vm.assertEq(service.operatorCount, 1);
        assert(service.status == ServiceStatus.Active && service.pricing == Pricing.PayOnce);
    }

    /// @notice The chain tells a node each job's schemas.
    function test_definitionHoldsTheSchemas() public {
        ScriptedManager manager = new ScriptedManager();
        makeService(address(manager), Pricing.EventDriven, 5 gwei, 0, STRING_FIELD, "");
        BlueprintDefinition memory definition = tangle.getBlueprintDefinition(0);
        vm.assertEq(definition.manager, address(manager));
        vm.assertEq(definition.config.eventRate, 5 gwei);
        assert(definition.config.pricing == Pricing.EventDriven);
        vm.assertEq(definition.jobs.length, 1);
        vm.assertEq(definition.jobs[0].name, "execute");
        vm.assertEq(definition.jobs[0].paramsSchema, STRING_FIELD);
        vm.assertEq(definition.jobs[0].resultSchema, "");
    }

    function test_unknownBlueprintFails() public {
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.BlueprintNotFound.selector, 4));
        tangle.activateService(4, list(operatorA), list(caller), 0);
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.BlueprintNotFound.selector, 4));
        tangle.getBlueprintDefinition(4);
    }

    function test_serviceWithoutOperatorsFails() public {
        tangle.registerBlueprint(address(0), new JobSpec[](1), Pricing.PayOnce, 0);
        vm.expectRevert(ITangleJobs.NoOperators.selector);
        tangle.activateService(0, new address[](0), new address[](0), 0);
    }

    function test_tooManyJobsFail() public {
        vm.expectRevert(ITangleJobs.LengthMismatch.selector);
        tangle.registerBlueprint(address(0), new JobSpec[](257), Pricing.PayOnce, 0);
    }

    /// @notice A manager without code could never let a result through, so it is refused at once.
    function test_managerWithoutCodeFails() public {
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.ManagerRejected.selector, stranger));
        tangle.registerBlueprint(stranger, new JobSpec[](1), Pricing.PayOnce, 0);
    }

    function test_managerCanStopAService() public {
        ScriptedManager manager = new ScriptedManager();
        manager.onInitDo(ScriptedManager.Way.RevertWithoutReason);
        tangle.registerBlueprint(address(manager), new JobSpec[](1), Pricing.PayOnce, 0);
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.ManagerRejected.selector, address(manager)));
        tangle.activateService(0, list(operatorA), list(caller), 0);
    }

    /// @notice The owner may call without being named; others need to be named.
    function test_permittedCallers() public {
        makeService(address(0));
        assert(tangle.isPermittedCaller(0, address(this)));
        assert(tangle.isPermittedCaller(0, caller));
        assert(!tangle.isPermittedCaller(0, stranger));
        tangle.permitCaller(0, stranger, true);
        assert(tangle.isPermittedCaller(0, stranger));
        tangle.permitCaller(0, caller, false);
        assert(!tangle.isPermittedCaller(0, caller));
    }

    function test_operatorsJoinAndLeave() public {
        makeService(address(0));
        vm.assertEq(tangle.getServiceOperators(0), list(operatorA, operatorB));
        tangle.setOperator(0, operatorA, false);
        vm.assertEq(tangle.getServiceOperators(0), list(operatorB));
        assert(!tangle.isServiceOperator(0, operatorA));
        tangle.setOperator(0, operatorA, true);
        tangle.setOperator(0, operatorA, true);
        vm.assertEq(tangle.getServiceOperators(0), list(operatorB, operatorA));
        vm.assertEq(tangle.getService(0).operatorCount, 2);
    }

    /// @notice Whatever the order of joining and leaving, the list holds exactly the members.
    function testFuzz_operatorListHoldsTheMembers(uint8[40] calldata moves) public {
        makeService(address(0));
        bool[8] memory member;
        for (uint256 i = 0; i < moves.length; ++i) {
            uint256 who = moves[i] % 8;
            member[who] = !member[who];
            tangle.setOperator(0, address(uint160(100 + who)), member[who]);
        }
        uint256 expected = 2;
        for (uint256 who = 0; who < 8; ++who) {
            vm.assertEq(tangle.isServiceOperator(0, address(uint160(100 + who))), member[who]);
            if (member[who]) ++expected;
        }
        address[] memory operators = tangle.getServiceOperators(0);
        vm.assertEq(operators.length, expected);
        for (uint256 i = 0; i < operators.length; ++i) {
            assert(tangle.isServiceOperator(0, operators[i]));
        }
    }

    function test_onlyTheOwnerChangesAService() public {
        makeService(address(0));
        bytes memory refusal = abi.encodeWithSelector(ITangleJobs.NotServiceOwner.selector, 0, stranger);
        vm.startPrank(stranger);
        vm.expectRevert(refusal);
        tangle.setOperator(0, stranger, true);
        vm.expectRevert(refusal);
        tangle.permitCaller(0, stranger, true);
        vm.expectRevert(refusal);
        tangle.terminateService(0);
    }

    function test_terminationIsAnnouncedOnce() public {
        makeService(address(0));
        vm.expectEmit(true, true, true, true, address(tangle));
        emit ITangleJobs.ServiceTerminated(0);
        tangle.terminateService(0);
        vm.assertEq(tangle.getService(0).terminatedAt, block.timestamp);
        assert(tangle.getService(0).status == ServiceStatus.Terminated);
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.ServiceNotActive.selector, 0));
        tangle.terminateService(0);
    }

    /// @notice A manager cannot keep a service from ending.
    function test_failingTerminationHookOnlyReports() public {
        ScriptedManager manager = new ScriptedManager();
        makeService(address(manager));
        manager.onInitDo(ScriptedManager.Way.RevertWithoutReason);
        vm.expectEmit(true, true, true, true, address(tangle));
        emit ITangleJobs.ManagerHookFailed(
            address(manager), IBlueprintServiceManager.onServiceTermination.selector, ""
        );
        tangle.terminateService(0);
    }

    /// @notice A malformed schema is refused when it is declared, for inputs as for outputs.
    function test_malformedSchemaFails() public {
        JobSpec[] memory jobs = new JobSpec[](2);
        jobs[1].paramsSchema = hex"020001ff00000000";
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.SchemaValidationFailed.selector, 2, 0, 1, 0));
        tangle.registerBlueprint(address(0), jobs, Pricing.PayOnce, 0);
        jobs[1].paramsSchema = "";
        jobs[1].resultSchema = hex"010000";
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.InvalidSchemaVersion.selector, 2, 1));
        tangle.registerBlueprint(address(0), jobs, Pricing.PayOnce, 0);
    }

    /// @notice Inputs and outputs are held to their schemas; the error names which, and where.
    function test_schemasAreEnforced() public {
        makeService(address(0), Pricing.PayOnce, 0, 0, STRING_FIELD, STRING_FIELD);
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.SchemaValidationFailed.selector, 2, 0, 0, 0));
        submit("");
        submit(hex"0161");
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.SchemaValidationFailed.selector, 3, 0, 0, 0));
        respond(operatorA, 0, hex"0261");
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.SchemaValidationFailed.selector, 3, 0, 0, 2));
        respond(operatorA, 0, hex"016161");
        respond(operatorA, 0, hex"0161");
    }

    /// @notice No function that changes state can be entered from within a hook.
    function test_hooksCannotComeBackIn() public {
        ReenteringManager manager = new ReenteringManager();
        makeService(address(manager));
        bytes[10] memory attempts = [
            abi.encodeCall(ITangleJobs.submitJob, (0, 0, "")),
            abi.encodeWithSelector(ITangleJobs.submitJobFromQuote.selector, 0, 0, 128, 160, 0, 0),
            abi.encodeCall(ITangleJobs.submitResult, (0, 0, "")),
            abi.encodeCall(ITangleJobs.submitResults, (0, new uint64[](0), new bytes[](0))),
            abi.encodeCall(
                ILocalTangle.registerBlueprint, (address(0), new JobSpec[](0), Pricing.PayOnce, 0)
            ),
            abi.encodeCall(ILocalTangle.activateService, (0, list(operatorA), list(caller), 0)),
            abi.encodeCall(ILocalTangle.setOperator, (0, stranger, true)),
            abi.encodeCall(ILocalTangle.permitCaller, (0, stranger, true)),
            abi.encodeCall(ILocalTangle.terminateService, (0)),
            abi.encodeCall(ILocalTangle.setActive, (false))
        ];
        for (uint256 i = 0; i < attempts.length; ++i) {
            manager.attempt(attempts[i]);
            submit("");
            vm.assertEq(manager.outcome(), abi.encodeWithSelector(ILocalTangle.Reentered.selector));
        }
        manager.attempt(abi.encodeCall(ILocalTangle.claimRewards, ()));
        submit("");
        vm.assertEq(manager.outcome(), abi.encodeWithSelector(ILocalTangle.Reentered.selector));
    }
}

/// @notice The least that a manager needs.
abstract contract BareManager {
    function onServiceInitialized(uint64, uint64, uint64, address, address[] calldata, uint64) external {}

    function onJobCall(uint64, uint8, uint64, bytes calldata) external payable virtual {}
}

/// @notice Calls the tangle contract from within `onJobCall` and keeps what came back.
contract ReenteringManager is BareManager {
    bytes public outcome;
    bytes private _data;

    function attempt(bytes calldata data) external {
        _data = data;
    }

    function onJobCall(uint64, uint8, uint64, bytes calldata) external payable override {
        (, outcome) = msg.sender.call(_data);
    }
}
