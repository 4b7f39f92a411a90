// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IBlueprintServiceManager} from "./interfaces/IBlueprintServiceManager.sol";
import {ILocalTangle} from "./interfaces/ILocalTangle.sol";
import {ITangleJobs} from "./interfaces/ITangleJobs.sol";
import {JobCall, JobSpec, Pricing, Service, SignedJobQuote} from "./interfaces/TangleTypes.sol";
import {PriceQuote} from "./libraries/PriceQuote.sol";
import {TlvSchema} from "./libraries/TlvSchema.sol";
import {TangleServices} from "./TangleServices.sol";

/// @title LocalTangle
/// @notice Job calls, results and their payment. What it does, and what it leaves out, is said in
/// `ILocalTangle`.
/// @dev Within one result, everything but the manager's say and the payout is written before the manager's
/// or an operator's code runs; the lock of `TangleServices` keeps them from coming back in.
contract LocalTangle is TangleServices {
    /// @dev What a receiving operator may use; a wallet contract needs a few thousand.
    uint256 private constant PAYOUT_GAS = 50_000;
    uint256 private constant MINIMUM_PRICE = 100;
    uint64 private constant MAX_QUOTE_AGE = 1 hours;

    /// @dev The first six members fill one slot: answering a call writes no other.
    struct Call {
        uint8 jobIndex;
        address caller;
        uint40 createdAt;
        uint32 resultCount;
        bool completed;
        bool isRFQ;
        uint256 payment;
        bytes32 inputsHash;
    }

    struct QuotedOperator {
        address operator;
        uint256 price;
    }

    mapping(uint64 serviceId => Call[]) private _calls;
    mapping(uint64 serviceId => mapping(uint64 callId => mapping(address => bool))) private _answered;
    mapping(uint64 serviceId => mapping(uint64 callId => QuotedOperator[])) private _quoted;
    mapping(bytes32 digest => bool) private _usedQuotes;

    /// @inheritdoc ILocalTangle
    mapping(address => uint256) public pendingRewards;

    // Jobs

    /// @inheritdoc ITangleJobs
    function submitJob(uint64 serviceId, uint8 jobIndex, bytes calldata inputs)
        external
        payable
        nonReentrant
        returns (uint64 callId)
    {
        Service storage service = _openService(serviceId);
        _requirePermitted(serviceId);
        Blueprint storage blueprint = _blueprints[service.blueprintId];
        uint256 due = service.pricing == Pricing.EventDriven ? blueprint.eventRate : 0;
        if (msg.value != due) revert InvalidMsgValue(due, msg.value);
        _checkInputs(service.blueprintId, jobIndex, inputs);

        callId = _createCall(serviceId, jobIndex, inputs, false);
        emit JobSubmitted(serviceId, callId, jobIndex, msg.sender, inputs);
        _announce(blueprint.manager, serviceId, jobIndex, callId, inputs);
    }

    /// @inheritdoc ITangleJobs
    function submitJobFromQuote(
        uint64 serviceId,
        uint8 jobIndex,
        bytes calldata inputs,
        SignedJobQuote[] calldata quotes
    ) external payable nonReentrant returns (uint64 callId) {
        if (quotes.length == 0) revert NoQuotes();
        Service storage service = _openService(serviceId);
        _requirePermitted(serviceId);
        _checkInputs(service.blueprintId, jobIndex, inputs);

        callId = uint64(_calls[serviceId].length);
        address[] memory quoted = new address[](quotes.length);
        uint256 total = 0;
        for (uint256 i = 0; i < quotes.length; ++i) {
            _useQuote(serviceId, jobIndex, keccak256(inputs), quotes[i], quoted);
            quoted[i] = quotes[i].operator;
            total += quotes[i].details.price;
            _quoted[serviceId][callId].push(QuotedOperator(quotes[i].operator, quotes[i].details.price));
        }
        if (msg.value != total) revert InvalidMsgValue(total, msg.value);

        _createCall(serviceId, jobIndex, inputs, true);
        emit JobSubmittedFromQuote(serviceId, callId, jobIndex, msg.sender, quoted, total, inputs);
        _announce(_blueprints[service.blueprintId].manager, serviceId, jobIndex, callId, inputs);
    }

    /// @inheritdoc ITangleJobs
    function submitResult(uint64 serviceId, uint64 callId, bytes calldata output) external nonReentrant {
        _submitResult(serviceId, callId, output);
    }

    /// @inheritdoc ITangleJobs
    function submitResults(uint64 serviceId, uint64[] calldata callIds, bytes[] calldata outputs)
        external
        nonReentrant
    {
        if (callIds.length != outputs.length) revert LengthMismatch();
        for (uint256 i = 0; i < callIds.length; ++i) {
            _submitResult(serviceId, callIds[i], outputs[i]);
        }
    }

    function _submitResult(uint64 serviceId, uint64 callId, bytes calldata output) private {
        _service(serviceId);
        Call storage call = _call(serviceId, callId);
        uint64 blueprintId = _openService(serviceId).blueprintId;
        Blueprint storage blueprint = _blueprints[blueprintId];
        address manager = blueprint.manager;
        uint8 jobIndex = call.jobIndex;
        _requireNoAggregation(manager, serviceId, jobIndex);
        _requireMayAnswer(serviceId, callId, call);
        bytes memory schema = blueprint.jobs[jobIndex].resultSchema;
        TlvSchema.validate(schema, output, TlvSchema.JOB_RESULT, blueprintId, jobIndex);

        _answered[serviceId][callId][msg.sender] = true;
        uint32 count = ++call.resultCount;
        _tryHook(
            manager,
            abi.encodeCall(
                IBlueprintServiceManager.onJobResult,
                (serviceId, jobIndex, callId, msg.sender, call.inputsHash, output)
            )
        );
        emit JobResultSubmitted(serviceId, callId, msg.sender, output);

        if (count < _requiredResults(manager, serviceId, jobIndex)) return;
        call.completed = true;
        emit JobCompleted(serviceId, callId);
        if (call.isRFQ) _payQuoted(serviceId, callId);
        else if (call.payment != 0) _payAll(serviceId, callId, call.payment);
    }

    // Views

    /// @inheritdoc ITangleJobs
    function getJobCall(uint64 serviceId, uint64 callId) external view returns (JobCall memory) {
        JobCall memory none;
        if (callId >= _calls[serviceId].length) return none;
        Call storage call = _calls[serviceId][callId];
        return JobCall({
            jobIndex: call.jobIndex,
            caller: call.caller,
            createdAt: call.createdAt,
            resultCount: call.resultCount,
            completed: call.completed,
            isRFQ: call.isRFQ,
            payment: call.payment
        });
    }

    /// @inheritdoc ITangleJobs
    function getJobQuotedOperators(uint64 serviceId, uint64 callId)
        external
        view
        returns (address[] memory operators)
    {
        QuotedOperator[] storage quoted = _quoted[serviceId][callId];
        operators = new address[](quoted.length);
        for (uint256 i = 0; i < quoted.length; ++i) {
            operators[i] = quoted[i].operator;
        }
    }

    /// @inheritdoc ITangleJobs
    function getJobQuotedPrice(uint64 serviceId, uint64 callId, address operator)
        external
        view
        returns (uint256)
    {
        QuotedOperator[] storage quoted = _quoted[serviceId][callId];
        for (uint256 i = 0; i < quoted.length; ++i) {
            if (quoted[i].operator == operator) return quoted[i].price;
        }
        return 0;
    }

    // Rules

    function _call(uint64 serviceId, uint64 callId) private view returns (Call storage) {
        if (callId >= _calls[serviceId].length) revert JobCallNotFound(serviceId, callId);
        return _calls[serviceId][callId];
    }

    function _requireMayAnswer(uint64 serviceId, uint64 callId, Call storage call) private view {
        _requireActiveOperator(serviceId, msg.sender);
        if (call.completed) revert JobAlreadyCompleted(serviceId, callId);
        if (_answered[serviceId][callId][msg.sender]) {
            revert ResultAlreadySubmitted(serviceId, callId, msg.sender);
        }
        if (!call.isRFQ) return;
        QuotedOperator[] storage quoted = _quoted[serviceId][callId];
        for (uint256 i = 0; i < quoted.length; ++i) {
            if (quoted[i].operator == msg.sender) return;
        }
        revert NotQuotedOperator(serviceId, callId);
    }

    function _checkInputs(uint64 blueprintId, uint8 jobIndex, bytes calldata inputs) private view {
        JobSpec[] storage jobs = _blueprints[blueprintId].jobs;
        if (jobIndex >= jobs.length) revert InvalidJobIndex(jobIndex);
        TlvSchema.validate(jobs[jobIndex].paramsSchema, inputs, TlvSchema.JOB_PARAMS, blueprintId, jobIndex);
    }

    /// @param quoted The operators of the quotes before this one.
    function _useQuote(
        uint64 serviceId,
        uint8 jobIndex,
        bytes32 inputsHash,
        SignedJobQuote calldata quote,
        address[] memory quoted
    ) private {
        address operator = quote.operator;
        if (quote.details.serviceId != serviceId) {
            revert JobQuoteServiceMismatch(serviceId, quote.details.serviceId);
        }
        if (quote.details.jobIndex != jobIndex) {
            revert JobQuoteJobIndexMismatch(jobIndex, quote.details.jobIndex);
        }
        for (uint256 i = 0; i < quoted.length; ++i) {
            if (quoted[i] == operator) revert DuplicateOperatorQuote(operator);
        }
        _requireActiveOperator(serviceId, operator);
        if (quote.details.price != 0 && quote.details.price < MINIMUM_PRICE) {
            revert PaymentTooSmall(quote.details.price, MINIMUM_PRICE);
        }
        if (quote.details.requester != msg.sender) {
            revert JobQuoteRequesterMismatch(operator, quote.details.requester, msg.sender);
        }
        if (quote.details.inputsHash != inputsHash) {
            revert JobQuoteInputsMismatch(operator, inputsHash, quote.details.inputsHash);
        }
        if (block.timestamp > quote.details.expiry) revert QuoteExpired(operator, quote.details.expiry);
        if (block.timestamp > uint256(quote.details.timestamp) + MAX_QUOTE_AGE) {
            revert QuoteTimestampTooOld(operator, quote.details.timestamp, MAX_QUOTE_AGE);
        }
        bytes32 digest = PriceQuote.digest(quote.details, address(this));
        if (_usedQuotes[digest]) revert QuoteAlreadyUsed(operator);
        if (!PriceQuote.isSignedBy(digest, quote.signature, operator)) {
            revert InvalidQuoteSignature(operator);
        }
        _usedQuotes[digest] = true;
        emit QuoteUsed(operator, digest);
    }

    function _createCall(uint64 serviceId, uint8 jobIndex, bytes calldata inputs, bool isRFQ)
        private
        returns (uint64 callId)
    {
        callId = uint64(_calls[serviceId].length);
        Call storage call = _calls[serviceId].push();
        call.jobIndex = jobIndex;
        call.caller = msg.sender;
        call.createdAt = uint40(block.timestamp);
        call.isRFQ = isRFQ;
        if (msg.value != 0) call.payment = msg.value;
        call.inputsHash = keccak256(inputs);
    }

    // Payment

    /// @inheritdoc ILocalTangle
    function claimRewards() external nonReentrant {
        uint256 amount = pendingRewards[msg.sender];
        pendingRewards[msg.sender] = 0;
        (bool sent,) = msg.sender.call{value: amount}("");
        if (!sent) revert RewardTransferFailed(msg.sender, amount);
    }

    /// @dev Equal shares; what division leaves over goes to the operator that completed the call.
    function _payAll(uint64 serviceId, uint64 callId, uint256 amount) private {
        address[] memory operators = _operators[serviceId];
        uint256 share = amount / operators.length;
        uint256 rest = amount - share * operators.length;
        for (uint256 i = 0; i < operators.length; ++i) {
            _pay(serviceId, callId, operators[i], operators[i] == msg.sender ? share + rest : share);
        }
    }

    function _payQuoted(uint64 serviceId, uint64 callId) private {
        QuotedOperator[] memory quoted = _quoted[serviceId][callId];
        for (uint256 i = 0; i < quoted.length; ++i) {
            _pay(serviceId, callId, quoted[i].operator, quoted[i].price);
        }
    }

    /// @dev An operator that cannot receive must not keep the others from being paid.
    function _pay(uint64 serviceId, uint64 callId, address operator, uint256 amount) private {
        if (amount == 0) return;
        (bool sent,) = operator.call{value: amount, gas: PAYOUT_GAS}("");
        if (!sent) pendingRewards[operator] += amount;
        emit OperatorPaid(serviceId, callId, operator, amount);
    }

    // Hooks

    function _announce(
        address manager,
        uint64 serviceId,
        uint8 jobIndex,
        uint64 callId,
        bytes calldata inputs
    ) private {
        _hook(
            manager, abi.encodeCall(IBlueprintServiceManager.onJobCall, (serviceId, jobIndex, callId, inputs))
        );
    }

    /// @dev Fails closed: without a clear "no" from the manager, a plain result is refused.
    function _requireNoAggregation(address manager, uint64 serviceId, uint8 jobIndex) private view {
        if (manager == address(0)) return;
        (bool ok, uint256 word) = _askManager(
            manager, abi.encodeCall(IBlueprintServiceManager.requiresAggregation, (serviceId, jobIndex))
        );
        if (!ok || word != 0) revert AggregationRequired(serviceId, jobIndex);
    }

    function _requiredResults(address manager, uint64 serviceId, uint8 jobIndex)
        private
        view
        returns (uint256)
    {
        if (manager == address(0)) return 1;
        (bool ok, uint256 word) = _askManager(
            manager, abi.encodeCall(IBlueprintServiceManager.getRequiredResultCount, (serviceId, jobIndex))
        );
        return ok ? word : 1;
    }

    function _askManager(address manager, bytes memory question)
        private
        view
        returns (bool ok, uint256 word)
    {
        bytes memory answer;
        (ok, answer) = manager.staticcall{gas: HOOK_GAS}(question);
        ok = ok && answer.length >= 32;
        if (ok) word = abi.decode(answer, (uint256));
    }
}
