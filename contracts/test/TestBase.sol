// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {LocalTangle} from "../src/LocalTangle.sol";
import {JobSpec, Pricing} from "../src/interfaces/TangleTypes.sol";

/// @notice The part of forge's cheat codes that the tests use.
interface Vm {
    struct Log {
        bytes32[] topics;
        bytes data;
        address emitter;
    }

    function addr(uint256 privateKey) external pure returns (address);
    function assertEq(address left, address right) external pure;
    function assertEq(bool left, bool right) external pure;
    function assertEq(bytes calldata left, bytes calldata right) external pure;
    function assertEq(bytes32 left, bytes32 right) external pure;
    function assertEq(int256 left, int256 right) external pure;
    function assertEq(string calldata left, string calldata right) external pure;
    function assertEq(uint256 left, uint256 right) external pure;
    function assertEq(address[] calldata left, address[] calldata right) external pure;
    function assume(bool condition) external pure;
    function chainId(uint256 id) external;
    function deal(address account, uint256 balance) external;
    function expectRevert(bytes calldata reason) external;
    function expectPartialRevert(bytes4 selector) external;
    function expectRevert(bytes4 selector) external;
    function expectEmit(bool topic1, bool topic2, bool topic3, bool data, address emitter) external;
    function getRecordedLogs() external returns (Log[] memory);
    function prank(address sender) external;
    function recordLogs() external;
    function sign(uint256 privateKey, bytes32 digest) external pure returns (uint8 v, bytes32 r, bytes32 s);
    function startPrank(address sender) external;
    function stopPrank() external;
    function warp(uint256 timestamp) external;
}

/// @notice A tangle contract with accounts, and short ways to make services.
abstract contract TestBase {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    uint256 internal constant KEY_A = 0xA11CE;
    uint256 internal constant KEY_B = 0xB0B;

    LocalTangle internal tangle;
    address internal operatorA = vm.addr(KEY_A);
    address internal operatorB = vm.addr(KEY_B);
    address internal caller = address(0xCA11E4);
    address internal stranger = address(0x57A4);

    function setUp() public virtual {
        vm.warp(1_800_000_000);
        tangle = new LocalTangle();
        vm.deal(address(this), 100 ether);
        vm.deal(caller, 100 ether);
    }

    receive() external payable {}

    /// @dev One service with operators A and B, `caller` permitted, one job without schemas; ids are 0.
    function makeService(address manager) internal {
        makeService(manager, Pricing.PayOnce, 0, 0, "", "");
    }

    function makeService(
        address manager,
        Pricing pricing,
        uint256 eventRate,
        uint64 ttl,
        bytes memory paramsSchema,
        bytes memory resultSchema
    ) internal {
        JobSpec[] memory jobs = new JobSpec[](1);
        jobs[0] = JobSpec("execute", paramsSchema, resultSchema);
        uint64 blueprintId = tangle.registerBlueprint(manager, jobs, pricing, eventRate);
        tangle.activateService(blueprintId, list(operatorA, operatorB), list(caller), ttl);
    }

    function submit(bytes memory inputs) internal returns (uint64) {
        vm.prank(caller);
        return tangle.submitJob(0, 0, inputs);
    }

    function respond(address operator, uint64 callId, bytes memory output) internal {
        vm.prank(operator);
        tangle.submitResult(0, callId, output);
    }

    function list(address a) internal pure returns (address[] memory accounts) {
        accounts = new address[](1);
        accounts[0] = a;
    }

    function list(address a, address b) internal pure returns (address[] memory accounts) {
        accounts = new address[](2);
        (accounts[0], accounts[1]) = (a, b);
    }

    /// @dev How many of the logs begin with this topic.
    function count(Vm.Log[] memory logs, bytes32 topic) internal pure returns (uint256 found) {
        for (uint256 i = 0; i < logs.length; ++i) {
            if (logs[i].topics[0] == topic) ++found;
        }
    }
}
