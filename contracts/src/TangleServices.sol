// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IBlueprintServiceManager} from "./interfaces/IBlueprintServiceManager.sol";
import {ILocalTangle} from "./interfaces/ILocalTangle.sol";
import {ITangleJobs} from "./interfaces/ITangleJobs.sol";
import {
    BlueprintDefinition,
    Confidentiality,
    JobDefinition,
    JobSpec,
    Membership,
    Pricing,
    Service,
    ServiceStatus
} from "./interfaces/TangleTypes.sol";
import {TlvSchema} from "./libraries/TlvSchema.sol";

/// @title Blueprints and services: who may call, who may answer, and which manager takes part
/// @dev The base of `LocalTangle`. No function that changes state can be entered while another one runs.
abstract contract TangleServices is ILocalTangle {
    uint256 internal constant HOOK_GAS = 500_000;

    struct Blueprint {
        address manager;
        Pricing pricing;
        uint256 eventRate;
        JobSpec[] jobs;
    }

    Blueprint[] internal _blueprints;
    Service[] private _services;
    mapping(uint64 serviceId => address[]) internal _operators;
    /// @dev Position in `_operators` plus one; 0 for an account that is not in the service.
    mapping(uint64 serviceId => mapping(address => uint256)) private _operatorSlot;
    mapping(uint64 serviceId => mapping(address => bool)) private _permitted;
    mapping(address => bool) private _inactive;
    bool private transient _entered;

    modifier nonReentrant() {
        if (_entered) revert Reentered();
        _entered = true;
        _;
        _entered = false;
    }

    modifier onlyOwner(uint64 serviceId) {
        if (_service(serviceId).owner != msg.sender) revert NotServiceOwner(serviceId, msg.sender);
        _;
    }

    // Set-up

    /// @inheritdoc ILocalTangle
    function registerBlueprint(address manager, JobSpec[] calldata jobs, Pricing pricing, uint256 eventRate)
        external
        nonReentrant
        returns (uint64 blueprintId)
    {
        if (jobs.length > 256) revert LengthMismatch();
        // Results of such a blueprint could never be accepted: the question about aggregation fails closed.
        if (manager != address(0) && manager.code.length == 0) revert ManagerRejected(manager);
        blueprintId = uint64(_blueprints.length);
        Blueprint storage blueprint = _blueprints.push();
        blueprint.manager = manager;
        blueprint.pricing = pricing;
        blueprint.eventRate = eventRate;
        for (uint64 i = 0; i < jobs.length; ++i) {
            TlvSchema.check(jobs[i].paramsSchema, TlvSchema.JOB_PARAMS, blueprintId, i);
            TlvSchema.check(jobs[i].resultSchema, TlvSchema.JOB_RESULT, blueprintId, i);
            blueprint.jobs.push(jobs[i]);
        }
    }

    /// @inheritdoc ILocalTangle
    function activateService(
        uint64 blueprintId,
        address[] calldata operators,
        address[] calldata permittedCallers,
        uint64 ttl
    ) external nonReentrant returns (uint64 serviceId) {
        Blueprint storage blueprint = _blueprint(blueprintId);
        if (operators.length == 0) revert NoOperators();
        serviceId = uint64(_services.length);
        Service storage service = _services.push();
        service.blueprintId = blueprintId;
        service.owner = msg.sender;
        service.createdAt = uint64(block.timestamp);
        service.ttl = ttl;
        service.minOperators = 1;
        service.membership = Membership.Dynamic;
        service.pricing = blueprint.pricing;
        service.status = ServiceStatus.Active;
        for (uint256 i = 0; i < operators.length; ++i) {
            _setOperator(serviceId, operators[i], true);
        }
        _permitted[serviceId][msg.sender] = true;
        for (uint256 i = 0; i < permittedCallers.length; ++i) {
            _permitted[serviceId][permittedCallers[i]] = true;
        }
        emit ServiceActivated(serviceId, serviceId, blueprintId, Confidentiality.Any);
        _hook(
            blueprint.manager,
            abi.encodeCall(
                IBlueprintServiceManager.onServiceInitialized,
                (blueprintId, serviceId, serviceId, msg.sender, permittedCallers, ttl)
            )
        );
    }

    /// @inheritdoc ILocalTangle
    function setOperator(uint64 serviceId, address operator, bool active)
        external
        nonReentrant
        onlyOwner(serviceId)
    {
        _setOperator(serviceId, operator, active);
    }

    /// @inheritdoc ILocalTangle
    function permitCaller(uint64 serviceId, address caller, bool permitted)
        external
        nonReentrant
        onlyOwner(serviceId)
    {
        _permitted[serviceId][caller] = permitted;
    }

    /// @inheritdoc ILocalTangle
    function terminateService(uint64 serviceId) external nonReentrant onlyOwner(serviceId) {
        Service storage service = _services[serviceId];
        if (service.status != ServiceStatus.Active) revert ServiceNotActive(serviceId);
        service.status = ServiceStatus.Terminated;
        service.terminatedAt = uint64(block.timestamp);
        emit ServiceTerminated(serviceId);
        _tryHook(
            _blueprints[service.blueprintId].manager,
            abi.encodeCall(IBlueprintServiceManager.onServiceTermination, (serviceId, msg.sender))
        );
    }

    /// @inheritdoc ILocalTangle
    function setActive(bool active) external nonReentrant {
        _inactive[msg.sender] = !active;
    }

    // Views

    /// @inheritdoc ITangleJobs
    function getService(uint64 serviceId) external view returns (Service memory) {
        Service memory none;
        return serviceId < _services.length ? _services[serviceId] : none;
    }

    /// @inheritdoc ITangleJobs
    function getBlueprintDefinition(uint64 blueprintId)
        external
        view
        returns (BlueprintDefinition memory definition)
    {
        Blueprint storage blueprint = _blueprint(blueprintId);
        definition.manager = blueprint.manager;
        definition.hasConfig = true;
        definition.config.membership = Membership.Dynamic;
        definition.config.pricing = blueprint.pricing;
        definition.config.minOperators = 1;
        definition.config.eventRate = blueprint.eventRate;
        definition.jobs = new JobDefinition[](blueprint.jobs.length);
        for (uint256 i = 0; i < blueprint.jobs.length; ++i) {
            definition.jobs[i].name = blueprint.jobs[i].name;
            definition.jobs[i].paramsSchema = blueprint.jobs[i].paramsSchema;
            definition.jobs[i].resultSchema = blueprint.jobs[i].resultSchema;
        }
        definition.supportedMemberships = new Membership[](1);
        definition.supportedMemberships[0] = Membership.Dynamic;
    }

    /// @inheritdoc ITangleJobs
    function getServiceOperators(uint64 serviceId) external view returns (address[] memory) {
        return _operators[serviceId];
    }

    /// @inheritdoc ITangleJobs
    function isServiceOperator(uint64 serviceId, address operator) external view returns (bool) {
        return _operatorSlot[serviceId][operator] != 0;
    }

    /// @inheritdoc ITangleJobs
    function isPermittedCaller(uint64 serviceId, address caller) external view returns (bool) {
        return _permitted[serviceId][caller];
    }

    // Rules

    function _service(uint64 serviceId) internal view returns (Service storage) {
        if (serviceId >= _services.length) revert ServiceNotFound(serviceId);
        return _services[serviceId];
    }

    function _openService(uint64 serviceId) internal view returns (Service storage service) {
        service = _service(serviceId);
        if (service.status != ServiceStatus.Active) revert ServiceNotActive(serviceId);
        uint256 ttl = service.ttl;
        if (ttl != 0 && block.timestamp > service.createdAt + ttl) revert ServiceExpired(serviceId);
    }

    function _requirePermitted(uint64 serviceId) internal view {
        if (!_permitted[serviceId][msg.sender]) revert NotPermittedCaller(serviceId, msg.sender);
    }

    function _requireActiveOperator(uint64 serviceId, address operator) internal view {
        if (_operatorSlot[serviceId][operator] == 0) revert OperatorNotInService(serviceId, operator);
        if (_inactive[operator]) revert OperatorNotActive(operator);
    }

    function _blueprint(uint64 blueprintId) internal view returns (Blueprint storage) {
        if (blueprintId >= _blueprints.length) revert BlueprintNotFound(blueprintId);
        return _blueprints[blueprintId];
    }

    function _setOperator(uint64 serviceId, address operator, bool active) private {
        address[] storage operators = _operators[serviceId];
        uint256 slot = _operatorSlot[serviceId][operator];
        if (active == (slot != 0)) return;
        if (active) {
            operators.push(operator);
            _operatorSlot[serviceId][operator] = operators.length;
        } else {
            address last = operators[operators.length - 1];
            operators[slot - 1] = last;
            _operatorSlot[serviceId][last] = slot;
            _operatorSlot[serviceId][operator] = 0;
            operators.pop();
        }
        _services[serviceId].operatorCount = uint32(operators.length);
    }

    // Hooks

    /// @dev The manager may refuse. Without a manager nothing happens.
    function _hook(address manager, bytes memory data) internal {
        if (manager == address(0)) return;
        (bool ok, bytes memory reason) = manager.call{gas: HOOK_GAS}(data);
        if (ok) return;
        if (reason.length == 0) revert ManagerRejected(manager);
        revert ManagerReverted(manager, reason);
    }

    /// @dev The manager is told; its failure is only reported.
    function _tryHook(address manager, bytes memory data) internal {
        if (manager == address(0)) return;
        (bool ok, bytes memory returned) = manager.call{gas: HOOK_GAS}(data);
        // The first four bytes are the hook's selector.
        // forge-lint: disable-next-line(unsafe-typecast)
        if (!ok) emit ManagerHookFailed(manager, bytes4(data), returned);
    }
}
