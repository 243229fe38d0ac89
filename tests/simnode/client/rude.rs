//! Clients that don't keep to the protocol, or to manners.

use std::rc::Rc;

use ringlog_protocol::messages::{ApiVersionsRequest, MetadataRequest};
use ringlog_ring::{self as ring, sim, sleep_ms, timeout_ms};

use super::Shared;
use super::connection::Connection;

/// Requests that are sent without reading an answer.
const UNREAD: usize = 200;
const CROWD: usize = 60;

/// So many requests, whose answers are large, are never taken from who doesn't read: they wait in buffers of the network,
/// and nowhere else.
const FLOOD_MAX: usize = 40_000;

/// Runs to the end of the run. Nothing of it is an error: nodes have to bear it.
pub async fn run(shared: Rc<Shared>) {
    let addresses: Vec<_> = shared.brokers.values().copied().collect();
    while !shared.is_over.get() {
        let address = addresses[sim::draw(addresses.len() as u64) as usize];
        let limit_ms = 500 + sim::draw(3_000);
        let _ = timeout_ms(limit_ms, async {
            let mut connection = Connection::open(address).await?;
            match sim::draw(6) {
                // Half of a request, and then nothing.
                0 => {
                    connection.send_raw(vec![0, 0, 1, 0, 0, 3]).await?;
                    connection.until_closed().await
                }
                // What is no request.
                1 => {
                    let noise = (0..64).map(|_| sim::draw(256) as u8).collect();
                    connection.send_raw(noise).await?;
                    connection.until_closed().await
                }
                // Asks and asks, and never listens.
                2 => {
                    for _ in 0..UNREAD {
                        let request = MetadataRequest { topics: None, ..MetadataRequest::default() };
                        let _ = connection.send(&request).await;
                    }
                    sleep_ms(limit_ms).await;
                    Ok(())
                }
                // Asks without end, and never listens.
                5 => {
                    for _ in 0..FLOOD_MAX {
                        let request = MetadataRequest { topics: None, ..MetadataRequest::default() };
                        connection.send(&request).await.map_err(|_| std::io::ErrorKind::BrokenPipe)?;
                    }
                    shared.complain(format!("{FLOOD_MAX} requests are taken from who reads no answer"));
                    Ok(())
                }
                // Asks, and is gone before the answer.
                3 => {
                    let _ = connection.send(&ApiVersionsRequest::default()).await;
                    Ok(())
                }
                // A crowd that says nothing.
                _ => {
                    let crowd: Vec<_> = (0..CROWD).map(|_| ring::spawn(Connection::open(address))).collect();
                    let mut open = Vec::new();
                    for one in crowd {
                        open.push(one.await);
                    }
                    sleep_ms(limit_ms).await;
                    Ok::<(), std::io::Error>(())
                }
            }
        })
        .await;
        sleep_ms(sim::draw(400)).await;
    }
}
