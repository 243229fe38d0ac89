//! Parts of a request, sorted by the cores that are their homes and sent there side by side.

use std::rc::Rc;

use smallvec::SmallVec;

use crate::core::Room;
use crate::mesh::{Call, LocalFuture};

/// Parts by home, in the order in which they came. Most requests concern few cores.
#[derive(Debug, Clone)]
pub struct ByHome<P>(SmallVec<[(usize, Vec<P>); 4]>);

/// Calls that are on their way to homes, in the order in which they were begun.
pub type Calls<T> = SmallVec<[Call<T>; 4]>;

impl<P> Default for ByHome<P> {
    fn default() -> ByHome<P> {
        ByHome(SmallVec::new())
    }
}

impl<P> ByHome<P> {
    /// One more, for the core `home`.
    pub fn push(&mut self, home: usize, part: P) {
        match self.0.iter_mut().find(|(known, _)| *known == home) {
            Some((_, parts)) => parts.push(part),
            None => self.0.push((home, vec![part])),
        }
    }

    /// The homes, each with its parts.
    pub fn homes(&self) -> &[(usize, Vec<P>)] {
        &self.0
    }

    /// The same, to be changed.
    pub fn homes_mut(&mut self) -> &mut [(usize, Vec<P>)] {
        &mut self.0
    }

    /// All parts.
    pub fn parts(&self) -> impl Iterator<Item = &P> {
        self.0.iter().flat_map(|(_, parts)| parts)
    }

    /// The same, to be changed.
    pub fn parts_mut(&mut self) -> impl Iterator<Item = &mut P> {
        self.0.iter_mut().flat_map(|(_, parts)| parts)
    }

    /// Leaves out parts, and homes without any.
    pub fn retain(&mut self, stays: impl Fn(&P) -> bool) {
        self.0.iter_mut().for_each(|(_, parts)| parts.retain(&stays));
        self.0.retain(|(_, parts)| !parts.is_empty());
    }

    /// Whether nobody is asked for anything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sends each home its parts. When this ends all are on their way, in the order of requests; `work` has begun where
    /// the home is this core.
    pub async fn send<R, T, W>(self, room: &Rc<R>, work: W) -> Calls<T>
    where
        R: Room,
        P: Send + 'static,
        T: Send + 'static,
        W: FnOnce(&Rc<R>, Vec<P>) -> LocalFuture<T> + Clone + Send + 'static,
    {
        let mut calls = Calls::new();
        for (home, parts) in self.0 {
            let work = work.clone();
            calls.push(room.begin_on(home, move |room| work(room, parts)).await);
        }
        calls
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_keep_their_order_within_each_home() {
        let mut by_home = ByHome::default();
        for (home, part) in [(2, 'a'), (0, 'b'), (2, 'c'), (1, 'd'), (0, 'e')] {
            by_home.push(home, part);
        }
        assert_eq!(by_home.homes(), [(2, vec!['a', 'c']), (0, vec!['b', 'e']), (1, vec!['d'])]);
        assert_eq!(by_home.parts().collect::<String>(), "acbed");
        by_home.retain(|part| *part != 'd' && *part != 'b');
        assert_eq!(by_home.homes(), [(2, vec!['a', 'c']), (0, vec!['e'])], "homes without parts aren't asked");
    }
}
