// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ITangleJobs} from "../src/interfaces/ITangleJobs.sol";
import {TlvSchema} from "../src/libraries/TlvSchema.sol";
import {Vm} from "./TestBase.sol";

/// @notice Makes the library's internal functions callable, so that their reverts can be caught.
contract TlvSchemaHarness {
    function validate(bytes calldata schema, bytes calldata payload) external pure {
        TlvSchema.check(schema, TlvSchema.JOB_PARAMS, 7, 3);
        TlvSchema.validate(schema, payload, TlvSchema.JOB_PARAMS, 7, 3);
    }

    function check(bytes calldata schema) external pure {
        TlvSchema.check(schema, TlvSchema.JOB_RESULT, 7, 3);
    }
}

/// @notice TLV schemas, version 2, against vectors of the protocol.
contract TlvSchemaTest {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
    TlvSchemaHarness internal harness = new TlvSchemaHarness();

    /// @dev language, code: string; input: optional string; args: list of string; timeout: u64.
    bytes internal constant PARAMS =
        hex"0200051100000000086c616e6775616765110000000004636f6465130000000105696e7075741100000000001500000001046172677311000000000008000000000774696d656f7574";
    /// @dev python / print(1) / none / ["a", "b"] / 30.
    bytes internal constant CALL = hex"06707974686f6e087072696e74283129000201610162000000000000001e";
    /// @dev stdout, stderr: string; exit_code: i32.
    bytes internal constant RESULT =
        hex"0200031100000000067374646f7574110000000006737464657272070000000009657869745f636f6465";

    function test_vectorsAreAccepted() public view {
        harness.validate(PARAMS, CALL);
        harness.validate(RESULT, hex"0131000000000a");
        harness.check(RESULT);
    }

    function test_emptySchemaAcceptsAnything() public view {
        harness.validate("", "");
        harness.validate("", hex"deadbeef");
    }

    /// @notice Whatever is cut off the end of a payload, it no longer fits.
    function test_everyTruncationFails() public {
        for (uint256 length = 0; length < CALL.length; ++length) {
            bytes memory cut = new bytes(length);
            for (uint256 i = 0; i < length; ++i) {
                cut[i] = CALL[i];
            }
            vm.expectPartialRevert(ITangleJobs.SchemaValidationFailed.selector);
            harness.validate(PARAMS, cut);
        }
    }

    /// @notice Bytes left over are an error; the path says how many were used.
    function test_trailingBytesFail() public {
        _expectFailure(2, CALL.length);
        harness.validate(PARAMS, abi.encodePacked(CALL, hex"00"));
    }

    /// @notice The path names the second item of the fourth field.
    function test_pathNamesTheNestedField() public {
        _expectFailure(2, (3 << 16) | 1);
        harness.validate(PARAMS, hex"06707974686f6e087072696e742831290002016105");
    }

    /// @notice A length of 20,000 is C2 4E 20 in a payload, and a name of 20,000 bytes is C0 4E 20 in a schema.
    function test_longLengthsDifferBetweenPayloadAndSchema() public {
        bytes memory long = new bytes(20_000);
        bytes memory schema = abi.encodePacked(hex"02000112", hex"00000000", hex"c04e20", long);
        harness.validate(schema, abi.encodePacked(hex"c24e20", long));
        _expectFailure(2, 0);
        harness.validate(schema, abi.encodePacked(hex"c04e20", long));
        _expectFailure(3, 0);
        harness.check(abi.encodePacked(hex"02000112", hex"00000000", hex"c24e20", long));
    }

    /// @notice The three shortest forms of a payload's length, at their borders.
    function test_payloadLengthForms() public view {
        bytes memory schema = hex"02000112000000000162";
        harness.validate(schema, abi.encodePacked(hex"7f", new bytes(0x7f)));
        harness.validate(schema, abi.encodePacked(hex"8080", new bytes(0x80)));
        harness.validate(schema, abi.encodePacked(hex"bfff", new bytes(0x3fff)));
        harness.validate(schema, abi.encodePacked(hex"c24000", new bytes(0x4000)));
        harness.validate(schema, abi.encodePacked(hex"c3010000", new bytes(0x10000)));
    }

    /// @notice A length of more than 32 bytes, of none, or beyond the payload does not overflow anything.
    function test_absurdLengthsFail() public {
        bytes memory schema = hex"02000112000000000162";
        bytes[5] memory payloads = [
            bytes(hex"c0"),
            abi.encodePacked(bytes1(0xe1), new bytes(33)),
            abi.encodePacked(bytes1(0xe0), type(uint256).max),
            abi.encodePacked(bytes1(0xc4), type(uint32).max),
            hex"80"
        ];
        for (uint256 i = 0; i < payloads.length; ++i) {
            _expectFailure(2, 0);
            harness.validate(schema, payloads[i]);
        }
    }

    /// @notice Each kind of fixed width takes exactly its width.
    function test_widths() public {
        uint8[16] memory widths = [0, 1, 1, 1, 2, 2, 4, 4, 8, 8, 16, 16, 32, 32, 20, 32];
        for (uint8 kind = 0; kind < 16; ++kind) {
            bytes memory schema = abi.encodePacked(hex"020001", kind, hex"0000000000");
            harness.validate(schema, new bytes(widths[kind]));
            _expectFailure(2, widths[kind]);
            harness.validate(schema, new bytes(uint256(widths[kind]) + 1));
            if (widths[kind] == 0) continue;
            _expectFailure(2, 0);
            harness.validate(schema, new bytes(uint256(widths[kind]) - 1));
        }
    }

    function test_fixedBytesAndArrays() public {
        harness.validate(hex"0200011000050000" hex"00", new bytes(5));
        harness.validate(hex"020001140003000100" hex"040000000000", new bytes(6));
        _expectFailure(2, 2);
        harness.validate(hex"020001140003000100" hex"040000000000", new bytes(5));
    }

    /// @notice An optional says how many bytes its value has, and the value must have just as many.
    function test_optionals() public {
        bytes memory schema = hex"02000113000000010008" hex"0000000000";
        harness.validate(schema, hex"00");
        harness.validate(schema, hex"080000000000000001");
        _expectFailure(2, 0);
        harness.validate(schema, hex"07000000000000000001");
        _expectFailure(2, 0);
        harness.validate(schema, hex"09000000000000000001");
    }

    function test_lists() public {
        bytes memory schema = hex"020001150000000100" hex"020000000000";
        harness.validate(schema, hex"00");
        harness.validate(schema, abi.encodePacked(hex"a710", new bytes(10_000)));
        _expectFailure(2, 0);
        harness.validate(schema, abi.encodePacked(hex"a711", new bytes(10_001)));
    }

    /// @notice A struct begins with the number of its fields.
    function test_structs() public {
        bytes memory schema = hex"020001160000000200" hex"020000000000" hex"040000000000";
        harness.validate(schema, hex"02010002");
        _expectFailure(2, 0);
        harness.validate(schema, hex"01010002");
        _expectFailure(2, 1);
        harness.validate(schema, hex"020100");
    }

    /// @notice A list of structs with an optional inside: schema nodes are found again for every item.
    function test_nesting() public view {
        bytes memory schema = hex"020002" hex"150000000100" hex"160000000200" hex"1300000001000200000000"
            hex"00" hex"110000000000" hex"040000000000";
        harness.validate(schema, hex"02" hex"02000161" hex"020109" hex"026162" hex"0007");
        harness.validate(schema, hex"000007");
    }

    function test_depth() public {
        harness.validate(_nested(32), _ones(31));
        _expectFailureAtAnyPath();
        harness.check(_nested(33));
    }

    /// @notice Schemas that are cut short, have leftovers, or break a kind's rules are refused.
    function test_malformedSchemasFail() public {
        bytes[10] memory schemas = [
            bytes(hex"02"),
            hex"0200",
            hex"020001",
            hex"0200011700000000" hex"00",
            hex"02000111000000000261",
            hex"020001100000000000",
            hex"020001100021000000",
            hex"020001110000000100" hex"110000000000",
            hex"020001150000000000",
            hex"02000111000000000000"
        ];
        for (uint256 i = 0; i < schemas.length; ++i) {
            vm.expectPartialRevert(ITangleJobs.SchemaValidationFailed.selector);
            harness.check(schemas[i]);
        }
    }

    function test_schemaOfAnotherVersionFails() public {
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.InvalidSchemaVersion.selector, 2, 1));
        harness.check(hex"010000");
    }

    /// @notice No payload and no schema makes the library fail in any other way than by its own errors.
    function testFuzz_failsOnlyByName(bytes calldata schema, bytes calldata payload) public view {
        try harness.validate(schema, payload) {}
        catch (bytes memory reason) {
            _assertNamed(reason);
        }
        try harness.validate(abi.encodePacked(hex"0200", schema), payload) {}
        catch (bytes memory reason) {
            _assertNamed(reason);
        }
    }

    function testFuzz_payloadsOfOneString(bytes calldata text) public view {
        vm.assume(text.length < 0x80);
        harness.validate(hex"02000111000000000161", abi.encodePacked(uint8(text.length), text));
    }

    function _assertNamed(bytes memory reason) private pure {
        bytes4 selector = bytes4(reason);
        assert(
            selector == ITangleJobs.SchemaValidationFailed.selector
                || selector == ITangleJobs.InvalidSchemaVersion.selector
        );
    }

    /// @dev Optionals around each other, `depth` nodes in all, with a byte inside.
    function _nested(uint256 depth) private pure returns (bytes memory schema) {
        schema = hex"020000000000";
        for (uint256 i = 1; i < depth; ++i) {
            schema = abi.encodePacked(hex"130000000100", schema);
        }
        schema = abi.encodePacked(hex"020001", schema);
    }

    /// @dev The byte 7 within `depth` optionals.
    function _ones(uint256 depth) private pure returns (bytes memory payload) {
        payload = hex"07";
        for (uint256 i = 0; i < depth; ++i) {
            payload = abi.encodePacked(uint8(payload.length), payload);
        }
    }

    function _expectFailure(uint8 target, uint256 path) private {
        vm.expectRevert(
            abi.encodeWithSelector(ITangleJobs.SchemaValidationFailed.selector, target, 7, 3, path)
        );
    }

    function _expectFailureAtAnyPath() private {
        vm.expectPartialRevert(ITangleJobs.SchemaValidationFailed.selector);
    }
}
