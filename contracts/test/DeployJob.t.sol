// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {DeployJob} from "../src/libraries/DeployJob.sol";
import {Vm} from "./TestBase.sol";

/// @notice The inputs and output of `deploy`.
contract DeployJobTest {
    using DeployJob for DeployJob.Request;
    using DeployJob for DeployJob.Result;

    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    function test_prepareAsksAnybodyWithDefaults() public pure {
        DeployJob.Request memory r = DeployJob.decodeRequest(DeployJob.prepare("my-app", "services: {}"));
        vm.assertEq(r.version, 1);
        vm.assertEq(r.action, DeployJob.PREPARE);
        vm.assertEq(uint256(uint160(r.operator)), 0);
        DeployJob.Preparation memory p = DeployJob.decodePreparation(r.body);
        vm.assertEq(p.name, "my-app");
        vm.assertEq(p.compose, "services: {}");
        vm.assertEq(uint256(p.composeDigest), 0);
        vm.assertEq(p.names.length + p.volumes.length + bytes(p.size.instanceType).length, 0);
        vm.assertEq(uint256(p.size.vcpu) + p.size.memoryMb + p.size.diskGb, 0);
        assert(!p.publicLogs && !p.publicSysinfo);
    }

    function test_prepareNamesVariables() public pure {
        string[] memory names = new string[](2);
        (names[0], names[1]) = ("TOKEN", "SALT");
        DeployJob.Request memory r = DeployJob.decodeRequest(DeployJob.prepare("my-app", "", names));
        DeployJob.Preparation memory p = DeployJob.decodePreparation(r.body);
        vm.assertEq(p.names.length, 2);
        vm.assertEq(p.names[1], "SALT");
    }

    /// @notice A commit goes to who has prepared, and for exactly the hash that was answered.
    function test_commitFollowsThePreparation() public pure {
        DeployJob.Result memory prepared;
        prepared.operator = address(0xBEEF);
        prepared.composeHash = keccak256("compose");
        DeployJob.Request memory r = DeployJob.decodeRequest(DeployJob.commit(7, prepared, hex"00ff"));
        vm.assertEq(r.action, DeployJob.COMMIT);
        assert(r.operator == address(0xBEEF));
        DeployJob.Commitment memory c = DeployJob.decodeCommitment(r.body);
        vm.assertEq(c.callId, 7);
        assert(c.composeHash == prepared.composeHash);
        vm.assertEq(c.sealedVariables, hex"00ff");
    }

    function test_removeNamesCallAndOperator() public pure {
        DeployJob.Request memory r = DeployJob.decodeRequest(DeployJob.remove(9, address(0xBEEF)));
        vm.assertEq(r.action, DeployJob.REMOVE);
        assert(r.operator == address(0xBEEF));
        vm.assertEq(DeployJob.decodeRemoval(r.body).callId, 9);
    }

    /// @notice The encoding is that of one tuple: it begins with the offset 0x20.
    function test_encodingIsOfOneTuple() public pure {
        bytes memory inputs = DeployJob.prepare("my-app", "");
        vm.assertEq(uint256(bytes32(inputs)), 0x20);
        vm.assertEq(DeployJob.decodeRequest(inputs).encode(), inputs);
    }

    /// forge-config: default.fuzz.runs = 24
    function testFuzz_preparationsSurvive(DeployJob.Preparation memory p) public pure {
        DeployJob.Request memory r = DeployJob.decodeRequest(DeployJob.encode(p));
        vm.assertEq(keccak256(abi.encode(DeployJob.decodePreparation(r.body))), keccak256(abi.encode(p)));
    }

    /// forge-config: default.fuzz.runs = 24
    function testFuzz_resultsSurvive(DeployJob.Result memory r) public pure {
        vm.assertEq(keccak256(abi.encode(DeployJob.decodeResult(r.encode()))), keccak256(abi.encode(r)));
    }

    function test_onlyStatusZeroIsSuccess() public pure {
        DeployJob.Result memory r;
        assert(r.succeeded());
        r.status = DeployJob.APPLICATION_FAILED;
        assert(!r.succeeded());
    }
}
