//! What this crate writes, read and written again by an independent implementation of Kafka's protocol.

use crate::common::Recoded;
use bytes::{Buf as _, Bytes, BytesMut};
use kafka_protocol::messages as theirs;
use kafka_protocol::protocol::{Decodable, Encodable, Message};
use ringlog_types::Random;
use std::collections::BTreeMap;

/// Damaged variants of each vector that are compared besides the vector itself.
const VARIANTS: usize = 12;

/// Reads all of `bytes` as the other implementation's type and writes it again; `None` where it lacks the version.
fn recode_theirs<M: Message + Decodable + Encodable>(mut bytes: Bytes, version: i16) -> Option<Result<Bytes, String>> {
    if !(M::VERSIONS.min..=M::VERSIONS.max).contains(&version) {
        return None;
    }
    let mut again = BytesMut::new();
    Some(match M::decode(&mut bytes, version) {
        Ok(_) if bytes.has_remaining() => Err(format!("{} bytes left over", bytes.remaining())),
        Ok(message) => message.encode(&mut again, version).map(|()| again.freeze()).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    })
}

type RecodeTheirs = fn(Bytes, i16) -> Option<Result<Bytes, String>>;

macro_rules! theirs {
    ($($message:ident,)*) => {
        fn theirs() -> BTreeMap<&'static str, RecodeTheirs> {
            BTreeMap::from([$((stringify!($message), recode_theirs::<theirs::$message> as RecodeTheirs),)*])
        }
    };
}

// Not LeaderChangeMessage and VotersRecord: the other implementation takes the `Voter` of one for that of the other.
theirs! {
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
    AddRaftVoterRequest, AddRaftVoterResponse, AllocateProducerIdsRequest, AllocateProducerIdsResponse,
    AlterClientQuotasRequest, AlterClientQuotasResponse, AlterConfigsRequest, AlterConfigsResponse,
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, AlterPartitionRequest,
    AlterPartitionResponse, AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse, AlterShareGroupOffsetsRequest,
    AlterShareGroupOffsetsResponse, AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse,
    ApiVersionsRequest, ApiVersionsResponse, AssignReplicasToDirsRequest, AssignReplicasToDirsResponse,
    BeginQuorumEpochRequest, BeginQuorumEpochResponse, BrokerHeartbeatRequest, BrokerHeartbeatResponse,
    BrokerRegistrationRequest, BrokerRegistrationResponse, ConsumerGroupDescribeRequest,
    ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
    ControllerRegistrationRequest, ControllerRegistrationResponse, CreateAclsRequest, CreateAclsResponse,
    CreateDelegationTokenRequest, CreateDelegationTokenResponse, CreatePartitionsRequest, CreatePartitionsResponse,
    CreateTopicsRequest, CreateTopicsResponse, DefaultPrincipalData, DeleteAclsRequest, DeleteAclsResponse,
    DeleteGroupsRequest, DeleteGroupsResponse, DeleteRecordsRequest, DeleteRecordsResponse,
    DeleteShareGroupOffsetsRequest, DeleteShareGroupOffsetsResponse, DeleteShareGroupStateRequest,
    DeleteShareGroupStateResponse, DeleteTopicsRequest, DeleteTopicsResponse, DescribeAclsRequest,
    DescribeAclsResponse, DescribeClientQuotasRequest, DescribeClientQuotasResponse, DescribeClusterRequest,
    DescribeClusterResponse, DescribeConfigsRequest, DescribeConfigsResponse, DescribeDelegationTokenRequest,
    DescribeDelegationTokenResponse, DescribeGroupsRequest, DescribeGroupsResponse, DescribeLogDirsRequest,
    DescribeLogDirsResponse, DescribeProducersRequest, DescribeProducersResponse, DescribeQuorumRequest,
    DescribeQuorumResponse, DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsResponse,
    DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, DescribeTransactionsRequest,
    DescribeTransactionsResponse, DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse,
    ElectLeadersRequest, ElectLeadersResponse, EndQuorumEpochRequest, EndQuorumEpochResponse, EndTxnRequest,
    EndTxnResponse, EnvelopeRequest, EnvelopeResponse, ExpireDelegationTokenRequest, ExpireDelegationTokenResponse,
    FetchRequest, FetchResponse, FetchSnapshotRequest, FetchSnapshotResponse, FindCoordinatorRequest,
    FindCoordinatorResponse, GetTelemetrySubscriptionsRequest, GetTelemetrySubscriptionsResponse, HeartbeatRequest,
    HeartbeatResponse, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, InitProducerIdRequest,
    InitProducerIdResponse, InitializeShareGroupStateRequest, InitializeShareGroupStateResponse, JoinGroupRequest,
    JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, ListConfigResourcesRequest,
    ListConfigResourcesResponse, ListGroupsRequest, ListGroupsResponse, ListOffsetsRequest, ListOffsetsResponse,
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, ListTransactionsRequest,
    ListTransactionsResponse, MetadataRequest, MetadataResponse, OffsetCommitRequest, OffsetCommitResponse,
    OffsetDeleteRequest, OffsetDeleteResponse, OffsetFetchRequest, OffsetFetchResponse, OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse, ProduceRequest, ProduceResponse, PushTelemetryRequest, PushTelemetryResponse,
    ReadShareGroupStateRequest, ReadShareGroupStateResponse, ReadShareGroupStateSummaryRequest,
    ReadShareGroupStateSummaryResponse, RemoveRaftVoterRequest, RemoveRaftVoterResponse,
    RenewDelegationTokenRequest, RenewDelegationTokenResponse, RequestHeader, ResponseHeader,
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
    ShareAcknowledgeRequest, ShareAcknowledgeResponse, ShareFetchRequest, ShareFetchResponse,
    ShareGroupDescribeRequest, ShareGroupDescribeResponse, ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse,
    SyncGroupRequest, SyncGroupResponse, TxnOffsetCommitRequest, TxnOffsetCommitResponse, UnregisterBrokerRequest,
    UnregisterBrokerResponse, UpdateFeaturesRequest, UpdateFeaturesResponse, UpdateRaftVoterRequest,
    UpdateRaftVoterResponse, VoteRequest, VoteResponse, WriteShareGroupStateRequest, WriteShareGroupStateResponse,
    WriteTxnMarkersRequest, WriteTxnMarkersResponse, ConsumerProtocolAssignment, ConsumerProtocolSubscription,
    EndTxnMarker, KRaftVersionRecord, SnapshotFooterRecord, SnapshotHeaderRecord,
}

#[test]
fn another_implementation_reads_what_we_write() {
    let theirs = theirs();
    let ours: BTreeMap<_, _> = crate::common::kinds().into_iter().map(|kind| (kind.name, kind)).collect();
    let mut random = Random::from_seed(0xc0de);
    let mut compared = BTreeMap::<&str, usize>::new();
    for vector in crate::common::vectors() {
        let Some((name, recode_theirs)) = theirs.get_key_value(vector.message.as_str()) else { continue };
        for variant in 0..=VARIANTS {
            let mut bytes = vector.bytes.to_vec();
            if variant > 0 && !bytes.is_empty() {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << random.below(8);
            }
            // A variant that we don't take, or can't write, is no message to compare.
            let recoded = (ours[name].recode)(bytes.into(), vector.version, true);
            let Recoded::Done { bytes: written, debug, .. } = recoded else { continue };
            let Some(again) = recode_theirs(written.clone(), vector.version) else { continue };
            assert_eq!(again.as_ref(), Ok(&written), "{name} version {}: {debug}", vector.version);
            *compared.entry(*name).or_default() += 1;
        }
    }
    assert_eq!(compared.len(), theirs.len(), "every message was compared in some version");
}
