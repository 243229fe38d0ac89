//! ListTransactions and DescribeTransactions (KIP-664): there are no transactions here yet, so there are none to show.

use std::collections::BTreeSet;

use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::describe_transactions_request::DescribeTransactionsRequest;
use ringlog_protocol::messages::describe_transactions_response::{DescribeTransactionsResponse, TransactionState};
use ringlog_protocol::messages::list_transactions_request::ListTransactionsRequest;
use ringlog_protocol::messages::list_transactions_response::ListTransactionsResponse;
use ringlog_types::ErrorCode;

/// The names of a transaction's states.
const STATES: [&str; 8] = [
    "Empty",
    "Ongoing",
    "PrepareCommit",
    "PrepareAbort",
    "CompleteCommit",
    "CompleteAbort",
    "Dead",
    "PrepareEpochFence",
];

/// Answers ListTransactions.
pub fn list(request: ListTransactionsRequest) -> ListTransactionsResponse {
    let unknown: BTreeSet<StrBytes> =
        request.state_filters.into_iter().filter(|state| !STATES.contains(&state.as_str())).collect();
    ListTransactionsResponse { unknown_state_filters: unknown.into_iter().collect(), ..Default::default() }
}

/// Answers DescribeTransactions.
pub fn describe(request: DescribeTransactionsRequest) -> DescribeTransactionsResponse {
    // As Kafka where there have been no transactions yet.
    let not_found = |transactional_id: StrBytes| TransactionState {
        error_code: match transactional_id.is_empty() {
            true => ErrorCode::InvalidRequest.code(),
            false => ErrorCode::NotCoordinator.code(),
        },
        transactional_id,
        ..Default::default()
    };
    let transaction_states = request.transactional_ids.into_iter().map(not_found).collect();
    DescribeTransactionsResponse { transaction_states, ..Default::default() }
}
