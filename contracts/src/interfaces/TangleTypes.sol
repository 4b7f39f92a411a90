// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @notice The structs and enums of the Tangle EVM job protocol that a job node meets. Members are in the
/// protocol's order: the ABI encoding depends on it.

enum Membership {
    Fixed,
    Dynamic
}

enum Pricing {
    PayOnce,
    Subscription,
    EventDriven
}

enum ServiceStatus {
    Pending,
    Active,
    Terminated
}

enum Confidentiality {
    Any,
    TeeRequired,
    StandardRequired,
    TeePreferred
}

/// @notice One request for work: the `callId`-th job call of a service.
/// @param createdAt Seconds since the epoch.
/// @param isRFQ True for a job bought with price quotes; only the quoted operators may answer it.
/// @param payment Wei that are paid out at completion.
struct JobCall {
    uint8 jobIndex;
    address caller;
    uint64 createdAt;
    uint32 resultCount;
    bool completed;
    bool isRFQ;
    uint256 payment;
}

/// @notice One running instance of a blueprint.
/// @param ttl Seconds after `createdAt` at which the service expires; 0 for never.
struct Service {
    uint64 blueprintId;
    address owner;
    uint64 createdAt;
    uint64 ttl;
    uint64 terminatedAt;
    uint64 lastPaymentAt;
    uint32 operatorCount;
    uint32 minOperators;
    uint32 maxOperators;
    Membership membership;
    Pricing pricing;
    ServiceStatus status;
    Confidentiality confidentiality;
}

/// @notice What an operator signs (EIP-712) to offer one job call at a price.
/// @param requester The only account that may use the quote.
/// @param price Wei; 0, or at least 100.
/// @param timestamp When it was signed; a quote is good for at most one hour after that.
/// @param expiry The last second at which it is good.
/// @param inputsHash keccak256 of the inputs that the price is for.
struct JobQuoteDetails {
    address requester;
    uint64 serviceId;
    uint8 jobIndex;
    uint256 price;
    uint64 timestamp;
    uint64 expiry;
    uint8 confidentiality;
    bytes32 inputsHash;
}

/// @param signature 65 bytes, r, s, v, by `operator` over the EIP-712 digest of `details`.
struct SignedJobQuote {
    JobQuoteDetails details;
    bytes signature;
    address operator;
}

struct BlueprintConfig {
    Membership membership;
    Pricing pricing;
    uint32 minOperators;
    uint32 maxOperators;
    uint256 subscriptionRate;
    uint64 subscriptionInterval;
    uint256 eventRate;
}

struct BlueprintMetadata {
    string name;
    string description;
    string author;
    string category;
    string codeRepository;
    string logo;
    string website;
    string license;
    string profilingData;
}

/// @param paramsSchema TLV version 2 schema of the inputs; empty accepts any bytes.
/// @param resultSchema TLV version 2 schema of the output; empty accepts any bytes.
struct JobDefinition {
    string name;
    string description;
    string metadataUri;
    bytes paramsSchema;
    bytes resultSchema;
}

struct ContainerSource {
    string registry;
    string image;
    string tag;
}

struct WasmSource {
    uint8 runtime;
    uint8 fetcher;
    string artifactUri;
    string entrypoint;
}

struct NativeSource {
    uint8 fetcher;
    string artifactUri;
    string entrypoint;
}

struct TestingSource {
    string cargoPackage;
    string cargoBin;
    string basePath;
}

struct BlueprintBinary {
    uint8 arch;
    uint8 os;
    string name;
    bytes32 sha256;
}

struct BlueprintSource {
    uint8 kind;
    ContainerSource container;
    WasmSource wasm;
    NativeSource native;
    TestingSource testing;
    BlueprintBinary[] binaries;
}

/// @notice The on-chain template of a service. LocalTangle fills what it knows: manager, config and jobs.
struct BlueprintDefinition {
    string metadataUri;
    bytes32 metadataHash;
    address manager;
    uint32 masterManagerRevision;
    bool hasConfig;
    BlueprintConfig config;
    BlueprintMetadata metadata;
    JobDefinition[] jobs;
    bytes registrationSchema;
    bytes requestSchema;
    BlueprintSource[] sources;
    Membership[] supportedMemberships;
}

/// @notice What `ILocalTangle.registerBlueprint` asks about one job.
struct JobSpec {
    string name;
    bytes paramsSchema;
    bytes resultSchema;
}
