// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IBlueprintServiceManager} from "../src/interfaces/IBlueprintServiceManager.sol";
import {ITangleJobs} from "../src/interfaces/ITangleJobs.sol";
import {PriceQuote} from "../src/libraries/PriceQuote.sol";
import {TestBase} from "./TestBase.sol";

/// @notice What goes over the wire is the deployed protocol's, number by number.
contract SelectorsTest is TestBase {
    function test_functions() public pure {
        assert(ITangleJobs.submitJob.selector == 0x3413e8ee);
        assert(ITangleJobs.submitResult.selector == 0x2d07e655);
        assert(ITangleJobs.submitResults.selector == 0xaacdba9f);
        assert(ITangleJobs.submitJobFromQuote.selector == 0x72a1f7be);
        assert(ITangleJobs.getJobCall.selector == 0xa672bc0a);
        assert(ITangleJobs.getService.selector == 0x3dc0d5fe);
        assert(ITangleJobs.getBlueprintDefinition.selector == 0x6171fea8);
        assert(ITangleJobs.getServiceOperators.selector == 0xbb207f1f);
        assert(ITangleJobs.isServiceOperator.selector == 0xa595b21e);
        assert(ITangleJobs.isPermittedCaller.selector == 0x2ec2bd03);
    }

    function test_errors() public pure {
        assert(ITangleJobs.JobAlreadyCompleted.selector == 0x0a55512f);
        assert(ITangleJobs.ResultAlreadySubmitted.selector == 0xb7e7fcee);
        assert(ITangleJobs.OperatorNotInService.selector == 0x783482e9);
        assert(ITangleJobs.OperatorNotActive.selector == 0xe356d5aa);
        assert(ITangleJobs.NotQuotedOperator.selector == 0xa32a5d1c);
        assert(ITangleJobs.AggregationRequired.selector == 0x77164cdc);
        assert(ITangleJobs.SchemaValidationFailed.selector == 0x9038fe73);
        assert(ITangleJobs.InvalidSchemaVersion.selector == 0xf2d459db);
        assert(ITangleJobs.ServiceNotActive.selector == 0x4c5fe2d8);
        assert(ITangleJobs.ServiceExpired.selector == 0x7c3e621b);
        assert(ITangleJobs.NotPermittedCaller.selector == 0xd5dd5b44);
        assert(ITangleJobs.InvalidJobIndex.selector == 0x1370bcad);
        assert(ITangleJobs.JobCallNotFound.selector == 0x96c6ebfc);
        assert(ITangleJobs.InvalidMsgValue.selector == 0x1f89f671);
        assert(ITangleJobs.ManagerReverted.selector == 0x07a84ec2);
        assert(ITangleJobs.ManagerRejected.selector == 0x71cc0e9a);
        assert(ITangleJobs.QuoteAlreadyUsed.selector == 0x08d18271);
        assert(ITangleJobs.InvalidQuoteSignature.selector == 0x11638a8e);
        assert(ITangleJobs.QuoteExpired.selector == 0x7bbe57e9);
    }

    function test_topics() public pure {
        assert(
            ITangleJobs.JobSubmitted.selector
                == 0xde37cc48d21778e1c9a075c4e41c5aff6918c3ea6151221f0af3ce8121a29db5
        );
        assert(
            ITangleJobs.JobSubmittedFromQuote.selector
                == 0xb707259a8a1604adca251fecf84eb283329cd45175690dcb8ff1cf52a6252422
        );
        assert(
            ITangleJobs.JobResultSubmitted.selector
                == 0x8a04f99fe23284e874e8dd017345248279cc59701695e73bcdbeb6241bcd2ac6
        );
        assert(
            ITangleJobs.JobCompleted.selector
                == 0x60a7649f6e93e7a3ce1dc9729c20e3d95dce28c6a6bd957cde09d8a1cb37c19f
        );
        assert(
            ITangleJobs.ServiceActivated.selector
                == 0x0325bb1c453505f13d5546dda087be5e237f7cf249f79a0ee406d97ef0ca7ee9
        );
        assert(
            ITangleJobs.ServiceTerminated.selector
                == 0x3fd558a59bbce1d996d17eab7fde314bcd201ec3f17375a7f873b3162927e881
        );
        assert(
            ITangleJobs.ManagerHookFailed.selector
                == 0x212b3bea93ba3eefbae6d15f7c17ac0868f3f756aacdd24d0bd69b0cbab22327
        );
    }

    function test_quoteTypehash() public pure {
        assert(PriceQuote.TYPEHASH == 0x0f2dd1fc353b13b24ce1767788f8adb446b60f8eec61038dc2a253e7f279dda2);
    }

    /// @notice The hooks' selectors follow from the types that the protocol documents.
    function test_hooks() public pure {
        assert(
            IBlueprintServiceManager.onJobCall.selector
                == bytes4(keccak256("onJobCall(uint64,uint8,uint64,bytes)"))
        );
        assert(
            IBlueprintServiceManager.onJobResult.selector
                == bytes4(keccak256("onJobResult(uint64,uint8,uint64,address,bytes32,bytes)"))
        );
        assert(
            IBlueprintServiceManager.getRequiredResultCount.selector
                == bytes4(keccak256("getRequiredResultCount(uint64,uint8)"))
        );
        assert(
            IBlueprintServiceManager.requiresAggregation.selector
                == bytes4(keccak256("requiresAggregation(uint64,uint8)"))
        );
        assert(
            IBlueprintServiceManager.onServiceInitialized.selector
                == bytes4(keccak256("onServiceInitialized(uint64,uint64,uint64,address,address[],uint64)"))
        );
    }
}
