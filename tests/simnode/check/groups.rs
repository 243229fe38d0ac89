//! Classic groups as their members know them: who leads whom, what was shared out, what was committed.

use std::collections::{BTreeMap, BTreeSet};

use super::Asked;

/// A partition, by its topic's place in the plan.
pub type Place = (usize, i32);

/// What a leader shared out. Its number stands in every assignment.
#[derive(Debug)]
struct Shares {
    generation: i32,
    by_member: BTreeMap<String, Vec<Place>>,
}

/// What became of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// No answer, or one that leaves it open.
    Unknown,
    /// It was acknowledged then.
    Acknowledged(u64),
    /// It was refused, and stays so.
    Refused,
}

/// A commit. The offset that it commits is its number.
#[derive(Debug)]
struct Commit {
    /// Power failures before it that may have taken what was committed, and its generation.
    order: (u32, i32),
    fate: Fate,
}

/// Whether a member has come to rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The generation.
    pub generation: i32,
    /// The members that its leader knew.
    pub members: usize,
    /// When the coordinator last said that all is well.
    pub at_ns: u64,
}

/// A group.
#[derive(Debug, Default)]
struct Group {
    /// What each member said last when it joined, by the id that it was given.
    joined: BTreeMap<String, Vec<Vec<u8>>>,
    shares: Vec<Shares>,
    /// Which of these holds in a generation, as some member was told.
    holds: BTreeMap<i32, usize>,
    /// Generations of which the first was told an assignment then: both rise.
    proven: Vec<(u64, i32)>,
    commits: BTreeMap<Place, Vec<Commit>>,
    settled: BTreeMap<usize, Settled>,
    /// Members that are in, and have been since they joined in a generation, though some may have begun anew meanwhile.
    quiet: BTreeMap<usize, i32>,
    /// When the coordinator has last heard of a member, at least.
    beats: BTreeMap<usize, u64>,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Groups {
    groups: BTreeMap<usize, Group>,
    void_before_ns: u64,
    losses: u32,
    /// How many commits were acknowledged.
    pub answers: u64,
}

impl Groups {
    fn group(&mut self, group: usize) -> &mut Group {
        self.groups.entry(group).or_default()
    }

    /// A member asks to be let in.
    pub fn on_join(&mut self, group: usize, member: &str, metadata: &[u8]) {
        let said = self.group(group).joined.entry(member.to_owned()).or_default();
        said.push(metadata.to_vec());
    }

    /// A member goes, or joins in a way that may have the group's partitions shared out again.
    pub fn on_restless(&mut self, group: usize, member: usize) {
        self.group(group).quiet.remove(&member);
    }

    /// The coordinator has heard of a member, that was sent then.
    pub fn on_beat(&mut self, group: usize, member: usize, sent_at_ns: u64) {
        self.group(group).beats.insert(member, sent_at_ns);
    }

    /// A member has joined a generation. Of one that began anew under its instance id it is known in which it `was`: it
    /// is the same, unless somebody else came or went, or wasn't heard of for a session.
    pub fn on_joined(
        &mut self,
        group: usize,
        member: usize,
        (was, generation): (Option<i32>, i32),
        (members, session_ns): (usize, u64),
        now_ns: u64,
    ) -> Result<(), String> {
        let its = self.group(group);
        let are_quiet = |was: i32| its.quiet.len() == members && its.quiet.values().all(|joined| *joined <= was);
        let are_known = its.beats.len() == members && its.beats.values().all(|at_ns| at_ns + session_ns > now_ns);
        let moved = was.filter(|was| *was != generation && are_quiet(*was) && are_known);
        its.quiet.entry(member).or_insert(generation);
        match moved {
            Some(was) => Err(format!("it began anew within its session, and generation {was} became {generation}")),
            None => Ok(()),
        }
    }

    /// Whether something may have been lost since then.
    pub fn has_lost_since(&self, at_ns: u64) -> bool {
        self.void_before_ns >= at_ns
    }

    /// A leader was told of its members and shares `places` out among them. Returns what each of them is to be told.
    pub fn share_out(
        &mut self,
        group: usize,
        generation: i32,
        leader: &str,
        members: &[(String, Vec<u8>)],
        places: &[Place],
    ) -> Result<Vec<(String, String)>, String> {
        let group = self.group(group);
        let names: BTreeSet<&String> = members.iter().map(|(name, _)| name).collect();
        if names.len() != members.len() || !names.iter().any(|name| *name == leader) {
            return Err(format!("leader {leader} of generation {generation} is told of members {names:?}"));
        }
        for (name, metadata) in members {
            if !group.joined.get(name).is_some_and(|said| said.contains(metadata)) {
                return Err(format!("generation {generation} has a member {name} that never said {metadata:?}"));
            }
        }
        let share = |number: usize| places.iter().skip(number).step_by(members.len()).copied().collect();
        let by_member = names.iter().enumerate().map(|(number, name)| ((*name).clone(), share(number)));
        let shares = Shares { generation, by_member: by_member.collect() };
        let number = group.shares.len();
        let told = shares.by_member.keys().map(|name| (name.clone(), format!("{number}|{name}"))).collect();
        group.shares.push(shares);
        Ok(told)
    }

    /// A member was told its assignment of a generation: its partitions and how many members there are.
    pub fn on_synced(
        &mut self,
        group: usize,
        (member, generation): (&str, i32),
        assignment: &[u8],
        (asked, now_ns): (Asked, u64),
    ) -> Result<(Vec<Place>, usize), String> {
        let is_void = asked.opened_at_ns < self.void_before_ns;
        let its = group;
        let group = self.group(group);
        let text = String::from_utf8_lossy(assignment).into_owned();
        let strange = |what: &str| format!("{member} gets {text:?} in generation {generation}: {what}");
        let (number, name) = text.split_once('|').ok_or_else(|| strange("nobody sent that"))?;
        let number: usize = number.parse().map_err(|_| strange("nobody sent that"))?;
        let shares = group.shares.get(number).ok_or_else(|| strange("nobody sent that"))?;
        let places = shares.by_member.get(member).ok_or_else(|| strange("it isn't a member"))?;
        if name != member || shares.generation != generation {
            return Err(strange("that isn't its own"));
        }
        if !is_void {
            if let Some(other) = group.holds.insert(generation, number).filter(|other| *other != number) {
                return Err(strange(&format!("others were told of {other}")));
            }
            if group.proven.last().is_none_or(|(_, proven)| *proven < generation) {
                group.proven.push((now_ns, generation));
            }
        }
        let told = (places.clone(), shares.by_member.len());
        self.on_success((its, member), generation, asked)?;
        Ok(told)
    }

    /// A request in a generation succeeded: no later one may have been told to anybody before it was sent.
    pub fn on_success(&self, (group, member): (usize, &str), generation: i32, asked: Asked) -> Result<(), String> {
        if asked.opened_at_ns < self.void_before_ns {
            return Ok(());
        }
        let proven = self
            .groups
            .get(&group)
            .and_then(|group| group.proven.iter().rev().find(|(at_ns, _)| *at_ns <= asked.sent_at_ns));
        match proven {
            Some((_, later)) if *later > generation => {
                Err(format!("{member} succeeds in generation {generation} after {later} was under way"))
            }
            _ => Ok(()),
        }
    }

    /// A member commits: what it is to commit.
    pub fn on_commit(&mut self, group: usize, generation: i32, place: Place) -> i64 {
        let order = (self.losses, generation);
        let commits = self.group(group).commits.entry(place).or_default();
        commits.push(Commit { order, fate: Fate::Unknown });
        commits.len() as i64 - 1
    }

    /// The answer to that.
    pub fn on_committed(&mut self, group: usize, place: Place, offset: i64, is_refused: bool, told: (Asked, u64)) {
        let is_void = told.0.opened_at_ns < self.void_before_ns;
        self.answers += u64::from(!is_refused);
        let commits = self.group(group).commits.entry(place).or_default();
        if let Some(commit) = commits.get_mut(offset as usize) {
            commit.fate = match is_refused {
                true => Fate::Refused,
                false if is_void => Fate::Unknown,
                false => Fate::Acknowledged(told.1),
            };
        }
    }

    /// Somebody who asked then found this committed; -1 for nothing.
    pub fn check(&mut self, group: usize, place: Place, found: i64, sent_at_ns: u64) -> Result<(), String> {
        let commits = self.group(group).commits.entry(place).or_default();
        let is_before =
            |commit: &&(usize, &Commit)| matches!(commit.1.fate, Fate::Acknowledged(at) if at <= sent_at_ns);
        let floor =
            commits.iter().enumerate().filter(|it| is_before(&it)).max_by_key(|(number, it)| (it.order, *number));
        let order = |number: usize, commit: &Commit| (commit.order, number);
        let is_right = match (usize::try_from(found).ok().and_then(|it| Some((it, commits.get(it)?))), floor) {
            (None, None) => found == -1,
            (None, Some(_)) => false,
            (Some((_, commit)), None) => commit.fate != Fate::Refused,
            (Some((number, commit)), Some((floor, acknowledged))) => match commit.fate {
                Fate::Refused => false,
                // A generation's commits end when the next one is under way.
                Fate::Unknown => commit.order.0 < acknowledged.order.0 || commit.order >= acknowledged.order,
                Fate::Acknowledged(_) => order(number, commit) >= order(floor, acknowledged),
            },
        };
        let floor = floor.map(|(number, _)| number);
        match is_right {
            true => Ok(()),
            false => {
                Err(format!("group {group}, {place:?}: {found} is committed, after {floor:?} of {}", commits.len()))
            }
        }
    }

    /// The power of brokers failed that promised nothing for that case.
    pub fn on_loss(&mut self, now_ns: u64) {
        self.void_before_ns = now_ns;
        self.losses += 1;
        for group in self.groups.values_mut() {
            group.holds.clear();
            group.proven.clear();
            for commit in group.commits.values_mut().flatten() {
                if matches!(commit.fate, Fate::Acknowledged(_)) {
                    commit.fate = Fate::Unknown;
                }
            }
        }
    }

    /// A member, by its number, has come to rest, or hasn't.
    pub fn settle(&mut self, group: usize, member: usize, settled: Option<Settled>) {
        match settled {
            Some(settled) => self.group(group).settled.insert(member, settled),
            None => self.group(group).settled.remove(&member),
        };
    }

    /// Why a group of so many members isn't at rest since then.
    pub fn unrest(&self, group: usize, members: usize, since_ns: u64) -> Option<String> {
        let none = BTreeMap::new();
        let settled = self.groups.get(&group).map_or(&none, |group| &group.settled);
        let first = settled.values().next();
        let is_equal = |it: &Settled| first.is_some_and(|first| first.generation == it.generation);
        let is_at_rest = settled.len() == members
            && settled.values().all(|it| is_equal(it) && it.members == members && it.at_ns > since_ns);
        (!is_at_rest).then(|| format!("group {group} of {members} members isn't stable: {settled:?}"))
    }

    /// What was committed.
    pub fn places(&self) -> Vec<(usize, Place)> {
        self.groups.iter().flat_map(|(group, it)| it.commits.keys().map(|place| (*group, *place))).collect()
    }
}
