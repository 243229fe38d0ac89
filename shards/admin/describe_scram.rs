//! DescribeUserScramCredentials: mechanisms and iterations of users, never their keys (KIP-554).

use std::collections::BTreeMap;

use ringlog_metadata::image::ScramImage;
use ringlog_protocol::StrBytes;
use ringlog_protocol::messages::describe_user_scram_credentials_request::DescribeUserScramCredentialsRequest;
use ringlog_protocol::messages::describe_user_scram_credentials_response::{
    CredentialInfo, DescribeUserScramCredentialsResponse, DescribeUserScramCredentialsResult,
};
use ringlog_types::ErrorCode;

use crate::metadata::MetadataView;

/// Answers DescribeUserScramCredentials.
pub fn handle(
    metadata: &MetadataView,
    request: DescribeUserScramCredentialsRequest,
) -> DescribeUserScramCredentialsResponse {
    answer(&metadata.image().scram, request)
}

fn answer(scram: &ScramImage, request: DescribeUserScramCredentialsRequest) -> DescribeUserScramCredentialsResponse {
    let mut by_user: BTreeMap<&str, Vec<CredentialInfo>> = BTreeMap::new();
    for ((mechanism, user), credential) in &scram.credentials {
        let info = CredentialInfo { mechanism: *mechanism as i8, iterations: credential.iterations };
        by_user.entry(user).or_default().push(info);
    }
    let result = |user: StrBytes, credential_infos| DescribeUserScramCredentialsResult {
        user,
        credential_infos,
        ..Default::default()
    };
    let refused = |user: &StrBytes, error: ErrorCode, text: &str| DescribeUserScramCredentialsResult {
        user: user.clone(),
        error_code: error.code(),
        error_message: Some(format!("{text}: {user}").into()),
        ..Default::default()
    };
    let Some(users) = request.users.filter(|users| !users.is_empty()) else {
        let results = by_user.into_iter().map(|(user, infos)| result(StrBytes::copy_from(user), infos)).collect();
        return DescribeUserScramCredentialsResponse { results, ..Default::default() };
    };
    let mut times: BTreeMap<StrBytes, usize> = BTreeMap::new();
    for user in users {
        *times.entry(user.name).or_default() += 1;
    }
    let results = times.iter().map(|(user, times)| match by_user.remove(user.as_str()) {
        _ if *times > 1 => {
            let text = "Cannot describe SCRAM credentials for the same user twice in a single request";
            refused(user, ErrorCode::DuplicateResource, text)
        }
        Some(infos) => result(user.clone(), infos),
        None => {
            let text = "Attempt to describe a user credential that does not exist";
            refused(user, ErrorCode::ResourceNotFound, text)
        }
    });
    DescribeUserScramCredentialsResponse { results: results.collect(), ..Default::default() }
}
