// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ITangleJobs} from "../interfaces/ITangleJobs.sol";

/// @title TLV schemas, version 2: the check that bytes have the shape that a job declares
/// @notice Schema: `0x02 | u16 fieldCount | node*`, each node `u8 kind | u16 arrayLength | u16 childCount |
/// length(name) | name | child*`. Payload: the fields' values one after the other, big-endian, without
/// padding; strings, lists, optionals and structs begin with a length. The two lengths are written alike
/// below 16,384 and differently from there on. An empty schema accepts any bytes.
/// @dev `check` looks at a schema once, when it is declared; `validate` trusts what `check` has passed.
library TlvSchema {
    uint8 internal constant VERSION = 2;
    uint8 internal constant JOB_PARAMS = 2;
    uint8 internal constant JOB_RESULT = 3;

    uint256 private constant MAX_DEPTH = 32;
    uint256 private constant MAX_LIST_ITEMS = 10_000;
    uint256 private constant MAX_STRUCT_FIELDS = 256;

    // Kinds; those below FIXED_BYTES have a width of their own: Void, Bool, U8, I8, U16, I16, U32, I32, U64,
    // I64, U128, I128, U256, I256, Address, Bytes32.
    uint8 private constant FIXED_BYTES = 16;
    uint8 private constant STRING = 17;
    uint8 private constant BYTES = 18;
    uint8 private constant OPTIONAL = 19;
    uint8 private constant ARRAY = 20;
    uint8 private constant LIST = 21;
    uint8 private constant STRUCT = 22;
    bytes16 private constant WIDTHS = hex"00010101020204040808101020201420";

    /// @dev What is being read, how far, and whom to name when it does not fit.
    struct Reader {
        bytes schema;
        bytes payload;
        uint256 at;
        uint8 target;
        uint64 refId;
        uint64 auxId;
    }

    struct Node {
        uint8 kind;
        uint256 arrayLength;
        uint256 childCount;
        uint256 firstChild;
    }

    /// @notice Revert unless `payload` is exactly what the schema describes.
    function validate(bytes memory schema, bytes calldata payload, uint8 target, uint64 refId, uint64 auxId)
        internal
        pure
    {
        if (schema.length == 0) return;
        Reader memory r = Reader(schema, payload, 0, target, refId, auxId);
        uint256 node = 3;
        uint256 fieldCount = _uint16(schema, 1);
        for (uint256 i = 0; i < fieldCount; ++i) {
            node = _value(r, node, payload.length, i);
        }
        if (r.at != payload.length) _fail(r, r.at);
    }

    /// @notice Revert unless the schema itself is well formed.
    function check(bytes memory schema, uint8 target, uint64 refId, uint64 auxId) internal pure {
        if (schema.length == 0) return;
        Reader memory r = Reader(schema, "", 0, target, refId, auxId);
        if (schema.length < 3) _fail(r, 0);
        if (uint8(schema[0]) != VERSION) {
            revert ITangleJobs.InvalidSchemaVersion(VERSION, uint8(schema[0]));
        }
        uint256 node = 3;
        uint256 fieldCount = _uint16(schema, 1);
        for (uint256 i = 0; i < fieldCount; ++i) {
            node = _checkNode(r, node, i, 1);
        }
        if (node != schema.length) _fail(r, node);
    }

    /// @dev Reads one value and returns where its schema node ends.
    function _value(Reader memory r, uint256 start, uint256 limit, uint256 path)
        private
        pure
        returns (uint256 end)
    {
        Node memory node = _node(r.schema, start);
        end = node.firstChild;
        if (node.kind <= FIXED_BYTES) {
            _take(r, node.kind == FIXED_BYTES ? node.arrayLength : uint8(WIDTHS[node.kind]), limit, path);
            return end;
        }
        if (node.kind == ARRAY) return _items(r, node.firstChild, node.arrayLength, limit, path);

        uint256 length = _payloadLength(r, limit, path);
        if (node.kind == STRING || node.kind == BYTES) {
            _take(r, length, limit, path);
        } else if (node.kind == OPTIONAL) {
            if (length == 0) return _skip(r.schema, node.firstChild);
            if (length > limit - r.at) _fail(r, path);
            uint256 valueEnd = r.at + length;
            end = _value(r, node.firstChild, valueEnd, path << 16);
            if (r.at != valueEnd) _fail(r, path);
        } else if (node.kind == LIST) {
            if (length > MAX_LIST_ITEMS) _fail(r, path);
            end = _items(r, node.firstChild, length, limit, path);
        } else {
            if (length != node.childCount) _fail(r, path);
            for (uint256 i = 0; i < length; ++i) {
                end = _value(r, end, limit, (path << 16) | i);
            }
        }
    }

    function _items(Reader memory r, uint256 child, uint256 count, uint256 limit, uint256 path)
        private
        pure
        returns (uint256)
    {
        for (uint256 i = 0; i < count; ++i) {
            _value(r, child, limit, (path << 16) | i);
        }
        return _skip(r.schema, child);
    }

    function _take(Reader memory r, uint256 size, uint256 limit, uint256 path) private pure {
        if (size > limit - r.at) _fail(r, path);
        r.at += size;
    }

    /// @dev Below 0x80 the byte itself; 0x80 to 0xBF begin two bytes; 0xC0 | n is followed by n bytes.
    function _payloadLength(Reader memory r, uint256 limit, uint256 path)
        private
        pure
        returns (uint256 length)
    {
        _take(r, 1, limit, path);
        uint256 first = uint8(r.payload[r.at - 1]);
        if (first < 0x80) return first;
        uint256 more = first < 0xC0 ? 1 : first & 0x3F;
        if (more == 0 || more > 32) _fail(r, path);
        length = first < 0xC0 ? first & 0x3F : 0;
        uint256 from = r.at;
        _take(r, more, limit, path);
        for (uint256 i = from; i < r.at; ++i) {
            length = (length << 8) | uint8(r.payload[i]);
        }
    }

    function _checkNode(Reader memory r, uint256 start, uint256 path, uint256 depth)
        private
        pure
        returns (uint256 end)
    {
        if (depth > MAX_DEPTH || start + 6 > r.schema.length) _fail(r, path);
        uint256 lengthSize = _nameLengthSize(uint8(r.schema[start + 5]));
        if (start + 5 + lengthSize > r.schema.length) _fail(r, path);
        Node memory node = _node(r.schema, start);
        end = node.firstChild;
        if (end > r.schema.length || node.kind > STRUCT) _fail(r, path);
        if (node.kind == FIXED_BYTES && (node.arrayLength == 0 || node.arrayLength > 32)) _fail(r, path);
        if (node.kind < OPTIONAL && node.childCount != 0) _fail(r, path);
        if (node.kind >= OPTIONAL && node.kind < STRUCT && node.childCount != 1) _fail(r, path);
        if (node.childCount > MAX_STRUCT_FIELDS) _fail(r, path);
        for (uint256 i = 0; i < node.childCount; ++i) {
            end = _checkNode(r, end, (path << 16) | i, depth + 1);
        }
    }

    function _skip(bytes memory schema, uint256 start) private pure returns (uint256 end) {
        Node memory node = _node(schema, start);
        end = node.firstChild;
        for (uint256 i = 0; i < node.childCount; ++i) {
            end = _skip(schema, end);
        }
    }

    function _node(bytes memory schema, uint256 start) private pure returns (Node memory node) {
        node.kind = uint8(schema[start]);
        node.arrayLength = _uint16(schema, start + 1);
        node.childCount = _uint16(schema, start + 3);
        uint256 first = uint8(schema[start + 5]);
        uint256 size = _nameLengthSize(first);
        uint256 length =
            size == 1 ? first : size == 2 ? first & 0x3F : size == 3 ? first & 0x1F : first & 0x0F;
        for (uint256 i = 1; i < size; ++i) {
            length = (length << 8) | uint8(schema[start + 5 + i]);
        }
        node.firstChild = start + 5 + size + length;
    }

    function _nameLengthSize(uint256 first) private pure returns (uint256) {
        return first < 0x80 ? 1 : first < 0xC0 ? 2 : first < 0xE0 ? 3 : 4;
    }

    function _uint16(bytes memory data, uint256 at) private pure returns (uint256) {
        return (uint256(uint8(data[at])) << 8) | uint8(data[at + 1]);
    }

    function _fail(Reader memory r, uint256 path) private pure {
        revert ITangleJobs.SchemaValidationFailed(r.target, r.refId, r.auxId, path);
    }
}
