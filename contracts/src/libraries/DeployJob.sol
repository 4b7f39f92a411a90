// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title The inputs and the output of the `deploy` job: a compose application, brought into a TEE
/// @notice Two calls deploy: `prepare` gives the application an identity and a key, `commit` starts it with
/// variables that were sealed to that key. A third, `remove`, ends it. Inputs and output are the ABI encoding of
/// one struct. In a request zero, or nothing, means the default.
/// @dev Everything on a chain is public: variables travel as ciphertext only, and are sealed off chain.
library DeployJob {
    /// @notice The index of this job in the blueprint.
    uint8 internal constant INDEX = 1;
    uint16 internal constant VERSION = 1;

    // What is asked for: `Request.action`.
    uint8 internal constant PREPARE = 1;
    uint8 internal constant COMMIT = 2;
    uint8 internal constant REMOVE = 3;

    // How a call ended: `Result.status`. A number that `ExecuteJob` has too means the same there.
    uint8 internal constant SUCCESS = 0;
    /// @notice A container of the application ended or is unhealthy. What ran was removed.
    uint8 internal constant APPLICATION_FAILED = 1;
    /// @notice The application did not become healthy in its time. What ran was removed.
    uint8 internal constant TIMEOUT = 3;
    /// @notice The preparation is no longer kept: prepare again.
    uint8 internal constant EXPIRED = 12;
    /// @notice There is no room for the application now: try later, or a smaller size.
    uint8 internal constant NO_CAPACITY = 13;
    /// @notice The attestation does not hold. What ran was removed.
    uint8 internal constant ATTESTATION_FAILED = 14;
    /// @notice The request was refused and nothing was done: `errorMessage` says why.
    uint8 internal constant REJECTED = 20;
    /// @notice The operator failed, not the request.
    uint8 internal constant SYSTEM_ERROR = 21;

    /// @param operator Who is to act: for a commit and a removal the `operator` of the preparation's result;
    /// in a preparation zero means whoever answers first.
    /// @param body The ABI encoding of a `Preparation`, a `Commitment` or a `Removal`, as `action` says.
    struct Request {
        uint16 version;
        uint8 action;
        address operator;
        bytes body;
    }

    /// @notice What the machine is to have; zero, or nothing, is the operator's choice.
    /// @param instanceType As the operator's cloud names it, for instance `tdx.small`.
    struct Size {
        string instanceType;
        uint32 vcpu;
        uint32 memoryMb;
        uint32 diskGb;
    }

    /// @param name Of the application, as app-compose.json will have it: 5 to 54 letters, digits and hyphens.
    /// @param compose The compose text. Empty to name one by digest instead.
    /// @param composeDigest SHA-256 of a compose text that the operator offers.
    /// @param names Of the variables that will be sealed; the compose text must use each of them.
    /// @param volumes The named volumes whose content must last, which the compose text must declare.
    /// @param publicLogs Whether anybody may read what the containers print.
    /// @param publicSysinfo Whether anybody may read what the machine uses.
    struct Preparation {
        string name;
        string compose;
        bytes32 composeDigest;
        string[] names;
        Size size;
        string[] volumes;
        bool publicLogs;
        bool publicSysinfo;
    }

    /// @param callId The call of the preparation, by the same caller.
    /// @param composeHash The one that the preparation answered.
    /// @param sealedVariables Ephemeral key, nonce, ciphertext and tag; empty for an application without
    /// variables.
    struct Commitment {
        uint64 callId;
        bytes32 composeHash;
        bytes sealedVariables;
    }

    /// @param callId The call of the preparation, by the same caller, whether it was committed or not.
    struct Removal {
        uint64 callId;
    }

    /// @notice What to seal to. Check the signature against the key management service's key before sealing.
    /// @param key X25519.
    /// @param signature secp256k1, r || s || recovery id.
    /// @param timestamp Of the signed statement, in seconds since 1970; 0 for the form without one.
    struct SealingKey {
        bytes32 key;
        bytes signature;
        uint64 timestamp;
    }

    /// @notice One form for every action; what an action does not answer is zero.
    /// @param operator Who keeps the preparation, or runs the application.
    /// @param sealingKey Only of a preparation; its key is zero where the application takes no variables.
    /// @param expiresAt When the preparation ends without a commit, in seconds since 1970.
    /// @param endpoint The URL at which the application answers; empty where it publishes nothing.
    /// @param attestationDigest Names the attestation that was verified.
    /// @param evidenceDigest SHA-256 of the evidence, which the node serves; zero where it keeps none.
    struct Result {
        uint16 version;
        uint8 status;
        uint8 action;
        address operator;
        bytes20 appId;
        bytes32 composeHash;
        SealingKey sealingKey;
        uint64 expiresAt;
        bytes20 instanceId;
        string endpoint;
        bytes32 attestationDigest;
        bytes32 evidenceDigest;
        string errorMessage;
    }

    /// @notice The inputs that prepare an application without variables, with all defaults.
    function prepare(string memory name, string memory compose) internal pure returns (bytes memory) {
        return encode(preparation(name, compose));
    }

    /// @notice The inputs that prepare an application which takes variables of these names.
    function prepare(string memory name, string memory compose, string[] memory names)
        internal
        pure
        returns (bytes memory)
    {
        Preparation memory p = preparation(name, compose);
        p.names = names;
        return encode(p);
    }

    /// @notice A preparation to be completed and encoded.
    function preparation(string memory name, string memory compose)
        internal
        pure
        returns (Preparation memory p)
    {
        p.name = name;
        p.compose = compose;
    }

    /// @notice The inputs that start what call `callId` has prepared.
    /// @param prepared The answer of that call.
    function commit(uint64 callId, Result memory prepared, bytes memory sealedVariables)
        internal
        pure
        returns (bytes memory)
    {
        Commitment memory c = Commitment(callId, prepared.composeHash, sealedVariables);
        return encode(Request(VERSION, COMMIT, prepared.operator, abi.encode(c)));
    }

    /// @notice The inputs that end what call `callId` has prepared.
    function remove(uint64 callId, address operator) internal pure returns (bytes memory) {
        return encode(Request(VERSION, REMOVE, operator, abi.encode(Removal(callId))));
    }

    /// @notice The inputs of a preparation by whichever operator answers first.
    function encode(Preparation memory p) internal pure returns (bytes memory) {
        return encode(Request(VERSION, PREPARE, address(0), abi.encode(p)));
    }

    function encode(Request memory r) internal pure returns (bytes memory) {
        return abi.encode(r);
    }

    function encode(Result memory r) internal pure returns (bytes memory) {
        return abi.encode(r);
    }

    function decodeRequest(bytes memory inputs) internal pure returns (Request memory) {
        return abi.decode(inputs, (Request));
    }

    function decodePreparation(bytes memory body) internal pure returns (Preparation memory) {
        return abi.decode(body, (Preparation));
    }

    function decodeCommitment(bytes memory body) internal pure returns (Commitment memory) {
        return abi.decode(body, (Commitment));
    }

    function decodeRemoval(bytes memory body) internal pure returns (Removal memory) {
        return abi.decode(body, (Removal));
    }

    /// @notice The answer of a call. Reverts when the bytes are not a result.
    function decodeResult(bytes memory output) internal pure returns (Result memory) {
        return abi.decode(output, (Result));
    }

    /// @notice True when the call did what it asked for.
    function succeeded(Result memory r) internal pure returns (bool) {
        return r.status == SUCCESS;
    }
}
