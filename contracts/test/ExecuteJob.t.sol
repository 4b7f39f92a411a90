// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ExecuteJob} from "../src/libraries/ExecuteJob.sol";
import {Vm} from "./TestBase.sol";

/// @notice The inputs and output of `execute`.
contract ExecuteJobTest {
    using ExecuteJob for ExecuteJob.Request;
    using ExecuteJob for ExecuteJob.Result;

    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    function test_snippetIsARequestOfOneFile() public pure {
        ExecuteJob.Request memory r = ExecuteJob.decodeRequest(ExecuteJob.snippet("python", "print(1)"));
        vm.assertEq(r.version, 1);
        vm.assertEq(r.language, "python");
        vm.assertEq(r.runtime, "");
        vm.assertEq(r.files.length, 1);
        vm.assertEq(r.files[0].path, "");
        vm.assertEq(r.files[0].content, "print(1)");
        vm.assertEq(r.entryPoint, "");
        vm.assertEq(r.stdin, "");
        vm.assertEq(r.args.length + r.dependencies.length + r.envVars.length + r.options.length, 0);
        vm.assertEq(uint256(r.limits.timeoutMs) + r.limits.memoryBytes, 0);
        vm.assertEq(uint256(r.limits.diskBytes) + r.limits.processes, 0);
    }

    function test_snippetWithStdin() public pure {
        ExecuteJob.Request memory r =
            ExecuteJob.decodeRequest(ExecuteJob.snippet("go", "package main", hex"00ff"));
        vm.assertEq(r.stdin, hex"00ff");
    }

    /// @notice The encoding is that of one tuple: it begins with the offset 0x20.
    function test_encodingIsOfOneTuple() public pure {
        bytes memory inputs = ExecuteJob.snippet("c", "");
        vm.assertEq(uint256(bytes32(inputs)), 0x20);
        vm.assertEq(ExecuteJob.decodeRequest(inputs).encode(), inputs);
    }

    /// forge-config: default.fuzz.runs = 24
    function testFuzz_requestsSurvive(ExecuteJob.Request memory r) public pure {
        vm.assertEq(keccak256(abi.encode(ExecuteJob.decodeRequest(r.encode()))), keccak256(abi.encode(r)));
    }

    /// forge-config: default.fuzz.runs = 24
    function testFuzz_resultsSurvive(ExecuteJob.Result memory r) public pure {
        vm.assertEq(keccak256(abi.encode(ExecuteJob.decodeResult(r.encode()))), keccak256(abi.encode(r)));
    }

    function test_onlyStatusZeroIsSuccess() public pure {
        ExecuteJob.Result memory r;
        assert(r.succeeded());
        r.status = ExecuteJob.NONZERO_EXIT;
        assert(!r.succeeded());
    }
}
