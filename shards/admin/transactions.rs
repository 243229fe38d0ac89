//! ListTransactions and DescribeTransactions (KIP-664): there are no transactions here yet, so there are none to show.

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
    let unknown = request.state_filters.into_iter().filter(|state| !STATES.contains(&state.as_str()));
    ListTransactionsResponse { unknown_state_filters: unknown.collect(), ..Default::default() }
}

/// Answers DescribeTransactions.
pub fn describe(request: DescribeTransactionsRequest) -> DescribeTransactionsResponse {
    let not_found = |transactional_id| TransactionState {
        error_code: ErrorCode::TransactionalIdNotFound.code(),
        transactional_id,
        ..Default::default()
    };
    let transaction_states = request.transactional_ids.into_iter().map(not_found).collect();
    DescribeTransactionsResponse { transaction_states, ..Default::default() }
}
