//! What only the controller can do: requests of clients go there in an Envelope as they are (KIP-590), and producer ids come
//! from there in blocks.

use std::net::IpAddr;
use std::rc::Rc;

use bytes::{BufMut, Bytes, BytesMut};
use ringlog_protocol::messages::{
    AllocateProducerIdsRequest, DefaultPrincipalData, EnvelopeRequest, InitProducerIdRequest, InitProducerIdResponse,
};
use ringlog_protocol::{ApiKey, Message, StrBytes};
use ringlog_ring::{sim, sleep_ms};
use ringlog_types::ErrorCode;

use super::channel::{Channel, NOT_CONTROLLER};
use super::peer::Peer;

/// Until then an active controller is looked for.
const FORWARDED_WITHIN_MS: u64 = 20_000;
/// Between two tries.
const AGAIN_MS: u64 = 50;
/// How long an answer is waited for.
const ANSWER_MS: u64 = 30_000;

/// Whether the controller answers it.
pub fn is_forwarded(key: ApiKey) -> bool {
    matches!(
        key,
        ApiKey::CreateTopics
            | ApiKey::DeleteTopics
            | ApiKey::CreatePartitions
            | ApiKey::ElectLeaders
            | ApiKey::AlterPartitionReassignments
            | ApiKey::IncrementalAlterConfigs
    )
}

/// The controller's answer; nothing when there is none, and the client's connection ends.
pub async fn forward(peer: &Rc<Peer>, request_data: Bytes, client: IpAddr) -> Option<Vec<Bytes>> {
    let client_host_address = match client {
        IpAddr::V4(address) => Bytes::copy_from_slice(&address.octets()),
        IpAddr::V6(address) => Bytes::copy_from_slice(&address.octets()),
    };
    let principal = DefaultPrincipalData {
        type_: StrBytes::from("User"),
        name: StrBytes::from("ANONYMOUS"),
        token_authenticated: false,
    };
    let version: i16 = 0;
    let mut request_principal = BytesMut::new();
    request_principal.put_i16(version);
    request_principal.extend_from_slice(&principal.to_bytes(version).ok()?);
    let request_principal = Some(request_principal.freeze());
    let envelope = EnvelopeRequest { request_data, request_principal, client_host_address };
    let deadline_ms = Peer::now_ms() + FORWARDED_WITHIN_MS;
    let channel = Channel::default();
    while Peer::now_ms() < deadline_ms {
        match channel.ask(peer, &envelope, ANSWER_MS).await {
            Some(answer) if answer.error_code == 0 => {
                let data = answer.response_data?;
                let size = i32::try_from(data.len()).ok()?;
                return Some(vec![Bytes::copy_from_slice(&size.to_be_bytes()), data]);
            }
            Some(answer) if answer.error_code != NOT_CONTROLLER => {
                peer.complain(&format!("the controller refuses an envelope with error {}", answer.error_code));
                return None;
            }
            _ => {
                sim::control().note(|| "no answer to an envelope".to_owned());
                sleep_ms(AGAIN_MS).await;
            }
        }
    }
    None
}

/// An id for an idempotent producer. There are no transactions here.
pub async fn init_producer_id(peer: &Rc<Peer>, request: &InitProducerIdRequest) -> InitProducerIdResponse {
    let refuse = |error: ErrorCode| InitProducerIdResponse {
        error_code: error.code(),
        producer_id: -1,
        producer_epoch: -1,
        ..InitProducerIdResponse::default()
    };
    if request.transactional_id.is_some() {
        return refuse(ErrorCode::CoordinatorNotAvailable);
    }
    if peer.producer_ids.get().0 >= peer.producer_ids.get().1 {
        let request = AllocateProducerIdsRequest { broker_id: peer.id(), broker_epoch: peer.epoch.get() };
        let answer = Channel::default().ask(peer, &request, ANSWER_MS).await;
        if let Some(answer) = answer.filter(|answer| answer.error_code == 0) {
            let first = answer.producer_id_start;
            peer.producer_ids.set((first, first + i64::from(answer.producer_id_len)));
        }
    }
    let (next, end) = peer.producer_ids.get();
    if next >= end {
        return refuse(ErrorCode::CoordinatorLoadInProgress);
    }
    peer.producer_ids.set((next + 1, end));
    InitProducerIdResponse { producer_id: next, producer_epoch: 0, ..InitProducerIdResponse::default() }
}
