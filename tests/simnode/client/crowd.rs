//! Opens more connections to a node than it lets in: no more than the limit may be served at a time, those above it end,
//! and where some have gone there is room again.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use ringlog_protocol::messages::MetadataRequest;
use ringlog_ring::{self as ring, sim, sleep_ms};

use super::Shared;
use super::connection::{CallFault, Connection};

const CALL_LIMIT_MS: u64 = 20_000;
/// So many are too many.
const ABOVE: usize = 8;
/// How long there is a crowd, and how long there is none, at most.
const STAYS_MS: u64 = 300;
const AWAY_MS: u64 = 3_000;
/// When nothing is wrong there is room again within this time: others come and go.
const ROOM_WITHIN_NS: u64 = 5 * sim::SECOND;

/// Runs until nothing goes wrong any more: then everybody is to be served.
pub async fn run(shared: Rc<Shared>, limit: usize) {
    let addresses: Vec<_> = shared.brokers.values().copied().collect();
    while shared.healed_at_ns.get().is_none() && !shared.is_over.get() {
        let address = addresses[sim::draw(addresses.len() as u64) as usize];
        gather(&shared, address, limit).await;
        // Who misbehaves may be a crowd, too.
        if shared.is_calm() && !shared.plan.has_rude_client {
            find_room(&shared, address).await;
        }
        sleep_ms(sim::draw(AWAY_MS)).await;
    }
}

async fn gather(shared: &Rc<Shared>, address: SocketAddr, limit: usize) {
    let served = Rc::new(RefCell::new(Vec::new()));
    let open = |_| {
        let (shared, served) = (shared.clone(), served.clone());
        ring::spawn(async move {
            match serve(address).await {
                Ok(connection) => served.borrow_mut().push(connection),
                Err(fault) => shared.judge("one of a crowd", &fault),
            }
        })
    };
    let crowd: Vec<_> = (0..limit + ABOVE).map(open).collect();
    for one in crowd {
        one.await;
    }
    sleep_ms(sim::draw(STAYS_MS)).await;
    // Who is answered again has been there all the time, and in the same life of the node.
    let mut stayed = 0;
    for mut connection in served.take() {
        match ask(&mut connection).await {
            Ok(()) => stayed += 1,
            Err(fault) => shared.judge("one of a crowd", &fault),
        }
    }
    if stayed > limit {
        shared.complain(format!("{stayed} connections are served at a time by {address}, and the limit is {limit}"));
    }
}

async fn find_room(shared: &Rc<Shared>, address: SocketAddr) {
    let begun_ns = sim::control().now_ns();
    while serve(address).await.is_err() && shared.is_calm() && !shared.is_over.get() {
        if sim::control().now_ns() > begun_ns + ROOM_WITHIN_NS {
            shared.complain(format!("{address} lets nobody in, though a crowd has gone"));
        }
        sleep_ms(50).await;
    }
}

async fn serve(address: SocketAddr) -> Result<Connection, CallFault> {
    let mut connection = Connection::open(address).await?;
    ask(&mut connection).await?;
    Ok(connection)
}

async fn ask(connection: &mut Connection) -> Result<(), CallFault> {
    let request = MetadataRequest { topics: Some(Vec::new()), ..MetadataRequest::default() };
    connection.call(&request, CALL_LIMIT_MS).await.map(drop)
}
