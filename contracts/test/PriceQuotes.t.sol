// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ITangleJobs} from "../src/interfaces/ITangleJobs.sol";
import {JobCall, JobQuoteDetails, SignedJobQuote} from "../src/interfaces/TangleTypes.sol";
import {PriceQuote} from "../src/libraries/PriceQuote.sol";
import {TestBase, Vm} from "./TestBase.sol";

/// @notice Makes the library's digest reachable with memory arguments.
contract PriceQuoteHarness {
    function digest(JobQuoteDetails calldata details, address tangle) external view returns (bytes32) {
        return PriceQuote.digest(details, tangle);
    }
}

/// @notice Jobs bought with signed prices.
contract PriceQuotesTest is TestBase {
    bytes internal constant INPUTS = "inputs";
    PriceQuoteHarness internal harness = new PriceQuoteHarness();

    function setUp() public override {
        super.setUp();
        makeService(address(0));
    }

    /// @notice `QuoteUsed` comes first, then only `JobSubmittedFromQuote`.
    function test_purchaseIsAnnounced() public {
        vm.recordLogs();
        _buy(_one(_quote(KEY_A, 1000)), 1000);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        vm.assertEq(logs.length, 2);
        vm.assertEq(logs[0].topics[0], ITangleJobs.QuoteUsed.selector);
        vm.assertEq(logs[1].topics[0], ITangleJobs.JobSubmittedFromQuote.selector);
        vm.assertEq(logs[1].topics.length, 3);
        vm.assertEq(logs[1].data, abi.encode(uint8(0), caller, list(operatorA), uint256(1000), INPUTS));
        JobCall memory call = tangle.getJobCall(0, 0);
        assert(call.isRFQ);
        vm.assertEq(call.payment, 1000);
        vm.assertEq(tangle.getJobQuotedOperators(0, 0), list(operatorA));
        vm.assertEq(tangle.getJobQuotedPrice(0, 0, operatorA), 1000);
        vm.assertEq(tangle.getJobQuotedPrice(0, 0, operatorB), 0);
    }

    function test_onlyQuotedOperatorsMayAnswer() public {
        _buy(_one(_quote(KEY_A, 1000)), 1000);
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.NotQuotedOperator.selector, 0, 0));
        respond(operatorB, 0, "");
        respond(operatorA, 0, "");
    }

    /// @notice Each quoted operator is paid its own price at completion, whoever answered.
    function test_eachQuotedOperatorGetsItsPrice() public {
        SignedJobQuote[] memory quotes = new SignedJobQuote[](2);
        (quotes[0], quotes[1]) = (_quote(KEY_A, 1000), _quote(KEY_B, 300));
        _buy(quotes, 1300);
        respond(operatorB, 0, "");
        vm.assertEq(operatorA.balance, 1000);
        vm.assertEq(operatorB.balance, 300);
        vm.assertEq(address(tangle).balance, 0);
    }

    function test_priceMayBeZero() public {
        _buy(_one(_quote(KEY_A, 0)), 0);
        respond(operatorA, 0, "");
    }

    function test_purchaseWithoutQuotesFails() public {
        vm.expectRevert(ITangleJobs.NoQuotes.selector);
        tangle.submitJobFromQuote(0, 0, INPUTS, new SignedJobQuote[](0));
    }

    function test_purchaseByStrangerFails() public {
        SignedJobQuote[] memory quotes = _one(_quote(KEY_A, 0));
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.NotPermittedCaller.selector, 0, stranger));
        vm.prank(stranger);
        tangle.submitJobFromQuote(0, 0, INPUTS, quotes);
    }

    function test_wrongValueFails() public {
        _refuse(
            _quote(KEY_A, 1000), 999, abi.encodeWithSelector(ITangleJobs.InvalidMsgValue.selector, 1000, 999)
        );
    }

    function test_priceTooSmallFails() public {
        _refuse(_quote(KEY_A, 99), 99, abi.encodeWithSelector(ITangleJobs.PaymentTooSmall.selector, 99, 100));
        _buy(_one(_quote(KEY_A, 100)), 100);
    }

    function test_quoteIsGoodOnce() public {
        SignedJobQuote memory quote = _quote(KEY_A, 0);
        _buy(_one(quote), 0);
        _refuse(quote, 0, abi.encodeWithSelector(ITangleJobs.QuoteAlreadyUsed.selector, operatorA));
    }

    function test_twoQuotesOfOneOperatorFail() public {
        SignedJobQuote[] memory quotes = new SignedJobQuote[](2);
        (quotes[0], quotes[1]) = (_quote(KEY_A, 0), _quote(KEY_A, 200));
        vm.expectRevert(abi.encodeWithSelector(ITangleJobs.DuplicateOperatorQuote.selector, operatorA));
        _buy(quotes, 200);
    }

    function test_quoteForOtherServiceFails() public {
        JobQuoteDetails memory details = _details(0);
        details.serviceId = 5;
        _refuse(
            _sign(KEY_A, details),
            0,
            abi.encodeWithSelector(ITangleJobs.JobQuoteServiceMismatch.selector, 0, 5)
        );
    }

    function test_quoteForOtherJobFails() public {
        JobQuoteDetails memory details = _details(0);
        details.jobIndex = 1;
        _refuse(
            _sign(KEY_A, details),
            0,
            abi.encodeWithSelector(ITangleJobs.JobQuoteJobIndexMismatch.selector, 0, 1)
        );
    }

    /// @notice A quote that somebody else has seen is of no use to them, and none is good for everybody.
    function test_quoteForOtherRequesterFails() public {
        address[2] memory requesters = [stranger, address(0)];
        for (uint256 i = 0; i < 2; ++i) {
            JobQuoteDetails memory details = _details(0);
            details.requester = requesters[i];
            _refuse(
                _sign(KEY_A, details),
                0,
                abi.encodeWithSelector(
                    ITangleJobs.JobQuoteRequesterMismatch.selector, operatorA, requesters[i], caller
                )
            );
        }
    }

    function test_quoteForOtherInputsFails() public {
        JobQuoteDetails memory details = _details(0);
        details.inputsHash = keccak256("cheap work");
        _refuse(
            _sign(KEY_A, details),
            0,
            abi.encodeWithSelector(
                ITangleJobs.JobQuoteInputsMismatch.selector, operatorA, keccak256(INPUTS), details.inputsHash
            )
        );
    }

    function test_quoteExpires() public {
        SignedJobQuote memory quote = _quote(KEY_A, 0);
        vm.warp(quote.details.expiry + 1);
        _refuse(
            quote,
            0,
            abi.encodeWithSelector(ITangleJobs.QuoteExpired.selector, operatorA, quote.details.expiry)
        );
        vm.warp(quote.details.expiry);
        _buy(_one(quote), 0);
    }

    /// @notice However late its expiry, a quote is good for one hour.
    function test_quoteAges() public {
        JobQuoteDetails memory details = _details(0);
        details.expiry = type(uint64).max;
        SignedJobQuote memory quote = _sign(KEY_A, details);
        vm.warp(details.timestamp + 3601);
        _refuse(
            quote,
            0,
            abi.encodeWithSelector(
                ITangleJobs.QuoteTimestampTooOld.selector, operatorA, details.timestamp, 3600
            )
        );
        vm.warp(details.timestamp + 3600);
        _buy(_one(quote), 0);
    }

    function test_quoteOfOutsiderFails() public {
        SignedJobQuote memory quote = _quote(0xBAD, 0);
        _refuse(
            quote, 0, abi.encodeWithSelector(ITangleJobs.OperatorNotInService.selector, 0, quote.operator)
        );
        vm.prank(operatorB);
        tangle.setActive(false);
        _refuse(
            _quote(KEY_B, 0), 0, abi.encodeWithSelector(ITangleJobs.OperatorNotActive.selector, operatorB)
        );
    }

    /// @notice A signature by another key, of another length, or with the malleable `s` is refused.
    function test_badSignaturesFail() public {
        bytes memory refusal = abi.encodeWithSelector(ITangleJobs.InvalidQuoteSignature.selector, operatorA);
        SignedJobQuote memory quote = _quote(KEY_B, 0);
        quote.operator = operatorA;
        _refuse(quote, 0, refusal);

        quote = _quote(KEY_A, 0);
        bytes memory good = quote.signature;
        quote.signature = abi.encodePacked(good, hex"00");
        _refuse(quote, 0, refusal);
        quote.signature = "";
        _refuse(quote, 0, refusal);

        (uint8 v, bytes32 r, bytes32 s) = vm.sign(KEY_A, harness.digest(quote.details, address(tangle)));
        uint256 order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;
        quote.signature = abi.encodePacked(r, order - uint256(s), uint8(v == 27 ? 28 : 27));
        _refuse(quote, 0, refusal);

        quote.signature = good;
        _buy(_one(quote), 0);
    }

    /// @notice The zero address, which a failed recovery yields, is never a signer.
    function test_zeroAddressIsNoSigner() public {
        tangle.setOperator(0, address(0), true);
        SignedJobQuote memory quote = _quote(KEY_A, 0);
        (quote.operator, quote.signature) = (address(0), "");
        SignedJobQuote[] memory quotes = _one(quote);
        vm.expectPartialRevert(ITangleJobs.DuplicateOperatorQuote.selector);
        _buy(quotes, 0);
    }

    /// @notice Changing any signed member makes the signature worthless.
    function testFuzz_everyMemberIsSigned(
        uint256 price,
        uint64 timestamp,
        uint64 expiry,
        uint8 confidentiality
    ) public view {
        SignedJobQuote memory quote = _quote(KEY_A, 500);
        bytes32 before = harness.digest(quote.details, address(tangle));
        quote.details.price = price;
        quote.details.timestamp = timestamp;
        quote.details.expiry = expiry;
        quote.details.confidentiality = confidentiality;
        vm.assume(keccak256(abi.encode(quote.details)) != keccak256(abi.encode(_quote(KEY_A, 500).details)));
        assert(before != harness.digest(quote.details, address(tangle)));
    }

    /// @notice The digest is EIP-712's, written out here a second time, and bound to chain and contract.
    function test_digestIsEip712() public {
        JobQuoteDetails memory details = _details(1000);
        bytes32 domain = keccak256(
            abi.encode(
                keccak256(
                    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
                ),
                keccak256("TangleQuote"),
                keccak256("1"),
                block.chainid,
                address(tangle)
            )
        );
        bytes32 structHash = keccak256(
            abi.encode(
                0x0f2dd1fc353b13b24ce1767788f8adb446b60f8eec61038dc2a253e7f279dda2,
                details.requester,
                details.serviceId,
                details.jobIndex,
                details.price,
                details.timestamp,
                details.expiry,
                details.confidentiality,
                details.inputsHash
            )
        );
        bytes32 expected = keccak256(abi.encodePacked(hex"1901", domain, structHash));
        vm.assertEq(harness.digest(details, address(tangle)), expected);
        vm.chainId(block.chainid + 1);
        assert(harness.digest(details, address(tangle)) != expected);
        assert(harness.digest(details, stranger) != harness.digest(details, address(tangle)));
    }

    function _details(uint256 price) private view returns (JobQuoteDetails memory) {
        return JobQuoteDetails({
            requester: caller,
            serviceId: 0,
            jobIndex: 0,
            price: price,
            timestamp: uint64(block.timestamp),
            expiry: uint64(block.timestamp) + 600,
            confidentiality: 0,
            inputsHash: keccak256(INPUTS)
        });
    }

    function _sign(uint256 key, JobQuoteDetails memory details) private view returns (SignedJobQuote memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, harness.digest(details, address(tangle)));
        return SignedJobQuote(details, abi.encodePacked(r, s, v), vm.addr(key));
    }

    function _quote(uint256 key, uint256 price) private view returns (SignedJobQuote memory) {
        return _sign(key, _details(price));
    }

    function _one(SignedJobQuote memory quote) private pure returns (SignedJobQuote[] memory quotes) {
        quotes = new SignedJobQuote[](1);
        quotes[0] = quote;
    }

    function _buy(SignedJobQuote[] memory quotes, uint256 value) private {
        vm.prank(caller);
        tangle.submitJobFromQuote{value: value}(0, 0, INPUTS, quotes);
    }

    function _refuse(SignedJobQuote memory quote, uint256 value, bytes memory refusal) private {
        SignedJobQuote[] memory quotes = _one(quote);
        vm.expectRevert(refusal);
        _buy(quotes, value);
    }
}
