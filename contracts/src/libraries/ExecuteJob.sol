// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title The inputs and the output of the `execute` job: a program to run, and how it ended
/// @notice Both are the ABI encoding of one struct. In a request zero, or nothing, means the default.
library ExecuteJob {
    /// @notice The index of this job in the blueprint.
    uint8 internal constant INDEX = 0;
    uint16 internal constant VERSION = 1;

    // How an execution ended: `Result.status`.
    uint8 internal constant SUCCESS = 0;
    uint8 internal constant NONZERO_EXIT = 1;
    uint8 internal constant SIGNALLED = 2;
    uint8 internal constant TIMEOUT = 3;
    uint8 internal constant CPU_LIMIT = 4;
    uint8 internal constant MEMORY_LIMIT = 5;
    uint8 internal constant DISK_LIMIT = 6;
    uint8 internal constant PROCESS_LIMIT = 7;
    uint8 internal constant FILE_SIZE_LIMIT = 8;
    uint8 internal constant COMPILATION_ERROR = 9;
    uint8 internal constant DEPENDENCY_ERROR = 10;
    uint8 internal constant CANCELLED = 11;
    /// @notice The request was refused and nothing was run: `errorMessage` says why.
    uint8 internal constant REJECTED = 20;
    /// @notice The node failed, not the program.
    uint8 internal constant SYSTEM_ERROR = 21;

    /// @param path Relative, with `/` between its parts; empty for a lone file, which the language names.
    struct SourceFile {
        string path;
        bytes content;
    }

    /// @param requirement A version or range, as the language's package index writes it; empty for any.
    /// @param source Where to get it; empty for the index.
    struct Dependency {
        string name;
        string requirement;
        string source;
    }

    struct Pair {
        string key;
        string value;
    }

    /// @notice May only lower what the operator allows.
    /// @param timeoutMs Wall clock of the run, in milliseconds.
    struct Limits {
        uint64 timeoutMs;
        uint64 memoryBytes;
        uint64 diskBytes;
        uint32 processes;
    }

    /// @param language Its lower-case name: python, javascript, typescript, java, go, cpp, php, swift.
    /// @param runtime A version of it, exact or a prefix.
    /// @param entryPoint The path of the file that is started.
    struct Request {
        uint16 version;
        string language;
        string runtime;
        SourceFile[] files;
        string entryPoint;
        bytes stdin;
        string[] args;
        Dependency[] dependencies;
        Pair[] envVars;
        Limits limits;
        Pair[] options;
    }

    /// @notice What the execution used; times in microseconds.
    struct Stats {
        uint64 wallUs;
        uint64 userUs;
        uint64 systemUs;
        uint64 memoryPeakBytes;
        uint64 diskBytes;
        uint32 processes;
    }

    /// @param limitsHit Bits of the limits that were touched, truncation of the output among them.
    /// @param exitCode What the program exited with; -1 when it did not end by exiting.
    /// @param signal The signal that ended the program, or 0.
    /// @param stdout What was printed, up to the node's cap; `stdoutSize` is the whole size.
    /// @param runtime The exact language and version that ran it.
    /// @param outputDigest Names the whole output, which the node serves.
    /// @param receipt The node's signed statement about this result.
    struct Result {
        uint16 version;
        uint8 status;
        uint32 limitsHit;
        int32 exitCode;
        uint8 signal;
        bytes stdout;
        bytes stderr;
        uint64 stdoutSize;
        uint64 stderrSize;
        Stats stats;
        string runtime;
        bytes32 outputDigest;
        string errorMessage;
        bytes receipt;
    }

    /// @notice The inputs that run a lone snippet with all defaults.
    function snippet(string memory language, string memory code) internal pure returns (bytes memory) {
        return snippet(language, code, "");
    }

    /// @notice The inputs that run a lone snippet which reads `stdin`.
    function snippet(string memory language, string memory code, bytes memory stdin)
        internal
        pure
        returns (bytes memory)
    {
        Request memory r = request(language, code);
        r.stdin = stdin;
        return encode(r);
    }

    /// @notice A request for a lone snippet, to be completed and encoded.
    function request(string memory language, string memory code) internal pure returns (Request memory r) {
        r.version = VERSION;
        r.language = language;
        r.files = new SourceFile[](1);
        r.files[0].content = bytes(code);
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

    /// @notice The answer of a call. Reverts when the bytes are not a result.
    function decodeResult(bytes memory output) internal pure returns (Result memory) {
        return abi.decode(output, (Result));
    }

    /// @notice True when the program ran to its end and reported success.
    function succeeded(Result memory r) internal pure returns (bool) {
        return r.status == SUCCESS;
    }
}
