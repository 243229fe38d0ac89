//! Partitions of a request, each asked something on its home core.

use std::rc::Rc;

use ringlog_partition::Unserved;
use ringlog_types::TopicIdPartition;

use crate::core::Room;
use crate::data::replica::Replica;
use crate::data::replicas::Replicas;
use crate::mesh::LocalFuture;
use crate::scatter::ByHome;

/// Answers of one core: places in the request and what was found there.
type Answers<R> = Vec<(usize, R)>;

/// Work on one partition of a request.
pub struct Part<T> {
    /// Its place in the request, for the answer.
    pub place: usize,
    /// The partition.
    pub id: TopicIdPartition,
    /// What is asked of it.
    pub ask: T,
}

/// A room from which partitions are asked.
pub trait HasReplicas: Room {
    /// Those of its core.
    fn replicas(&self) -> &Replicas;
}

/// Runs `work` for each part on the partition's home core and gives `(place, answer)` of all, in no order that means
/// anything. `work` gets the replica, or why nothing of the partition is served here. The parts of one core run one after
/// the other.
pub async fn run<H, T, R, F, W>(room: &Rc<H>, parts: Vec<Part<T>>, work: W) -> Answers<R>
where
    H: HasReplicas,
    T: Send + 'static,
    R: Send + 'static,
    F: Future<Output = R> + 'static,
    W: Fn(Rc<H>, Result<Rc<Replica>, Unserved>, T) -> F + Copy + Send + 'static,
{
    let count = parts.len();
    let mut by_home = ByHome::default();
    for part in parts {
        by_home.push(room.core().node.home_of(part.id), part);
    }
    let here = move |room: &Rc<H>, parts: Vec<Part<T>>| -> LocalFuture<Answers<R>> {
        let room = room.clone();
        Box::pin(async move {
            let mut answers = Vec::with_capacity(parts.len());
            for part in parts {
                let replica = room.replicas().served(part.id);
                answers.push((part.place, work(room.clone(), replica, part.ask).await));
            }
            answers
        })
    };
    let mut answers = Vec::with_capacity(count);
    for home in by_home.send(room, here).await {
        answers.extend(home.answer().await);
    }
    answers
}
