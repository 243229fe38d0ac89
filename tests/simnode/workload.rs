//! What else clients do in a run, drawn apart from the rest of the plan: a new kind of client leaves the other draws of a
//! seed as they were.

use ringlog_types::Random;

use crate::check::starts::Retention;

/// A classic group whose members share out partitions among them.
#[derive(Debug, Clone)]
pub struct GroupPlan {
    /// How many members there are when all are there.
    pub members: usize,
    /// What they subscribe to, by place in the plan.
    pub topics: Vec<usize>,
    /// `session.timeout.ms` of its members.
    pub session_timeout_ms: i32,
    /// `max.poll.interval.ms` of its members.
    pub rebalance_timeout_ms: i32,
    /// Of a hundred beats of a member so many are its last: it leaves, or is gone without a word.
    pub leaves_percent: u64,
    /// Its members have a `group.instance.id` each.
    pub is_static: bool,
}

/// More of a topic.
#[derive(Debug, Clone)]
pub struct TopicMore {
    /// What is deleted by itself.
    pub retention: Retention,
    /// Somebody deletes records.
    pub is_pruned: bool,
    /// `message.timestamp.type` is LogAppendTime.
    pub is_append_time: bool,
    /// Timestamps of records are so much in the past, at most.
    pub back_ms: u64,
    /// What is to be deleted isn't all in one segment.
    pub segment_bytes_max: u64,
    /// `max.message.bytes`, if it is small.
    pub message_bytes_max: Option<u64>,
}

impl TopicMore {
    /// Settings of the topic.
    pub fn configs(&self) -> Vec<(&'static str, String)> {
        let mut configs = Vec::new();
        configs.extend(self.retention.bytes.map(|bytes| ("retention.bytes", bytes.to_string())));
        configs.extend(self.retention.ms.map(|ms| ("retention.ms", ms.to_string())));
        if self.is_append_time {
            configs.push(("message.timestamp.type", "LogAppendTime".to_owned()));
        }
        configs
    }
}

/// See the module's text.
#[derive(Debug, Clone, Default)]
pub struct Workload {
    /// More of each topic of the plan.
    pub topics: Vec<TopicMore>,
    /// Groups.
    pub groups: Vec<GroupPlan>,
    /// Somebody changes settings.
    pub has_changer: bool,
    /// A topic is deleted and made anew while others use it.
    pub has_reborn_topic: bool,
    /// Somebody sends batches that are as large as may be, or larger.
    pub has_sizer: bool,
    /// Limits of batches are set only once topics are there; before, a little more is allowed.
    pub has_late_limits: bool,
    /// Somebody tries sequence numbers out.
    pub has_prober: bool,
    /// A crowd connects, more than this limit lets in: the key of server.properties, and its value.
    pub crowd: Option<(&'static str, usize)>,
    /// Keys of memory limits, and small values.
    memory: Vec<(&'static str, u64)>,
}

impl Workload {
    /// Leaves out what only partitions with one replica are asked for in these runs.
    pub fn make_plain(&mut self) {
        for topic in &mut self.topics {
            // Each replica deletes by itself what is too old or too much.
            topic.retention = Retention::default();
        }
        (self.has_changer, self.has_reborn_topic, self.has_sizer, self.has_prober) = (false, false, false, false);
        (self.crowd, self.memory) = (None, Vec::new());
        // One that gets no answer when it joins is another than it knows from then on.
        self.groups.iter_mut().for_each(|group| group.is_static = false);
    }

    /// What a seed's clients do in a plan of so many topics.
    pub fn of(seed: u64, topics: usize) -> Workload {
        let mut random = Random::from_seed(seed ^ 0x0a0d_10ad);
        let mut one = |of: &[u64]| of[random.below(of.len() as u64) as usize];
        let groups = one(&[0, 0, 0, 0, 1, 2]);
        let groups = (0..groups).map(|_| {
            let (all, only) = (one(&[0, 1]) == 0, one(&[0, 1]) as usize % topics);
            GroupPlan {
                members: one(&[1, 2, 3, 4]) as usize,
                topics: if all { (0..topics).collect() } else { vec![only] },
                session_timeout_ms: one(&[1_000, 3_000, 6_000]) as i32,
                rebalance_timeout_ms: one(&[1_000, 3_000, 10_000]) as i32,
                leaves_percent: one(&[0, 2, 10]),
                is_static: false,
            }
        });
        let groups = groups.collect();
        let prunes = one(&[0, 0, 1]) == 1;
        let topics = (0..topics).map(|_| {
            let (by_bytes, by_ms, is_pruned) = (one(&[0, 1]) == 1, one(&[0, 1]) == 1, one(&[0, 1]) == 1);
            let (bytes, ms) = (one(&[10_000, 300_000, 2_000_000]), one(&[500, 3_000, 10_000]));
            let is_append_time = one(&[0, 0, 0, 1]) == 1;
            let back_ms = one(&[0, 0, 10, 3_000]);
            let retention = Retention {
                bytes: Some(bytes).filter(|_| prunes && by_bytes),
                ms: Some(ms as i64).filter(|_| prunes && by_ms),
            };
            TopicMore {
                retention,
                is_pruned: prunes && is_pruned,
                is_append_time,
                back_ms: if is_append_time { 0 } else { back_ms },
                segment_bytes_max: if prunes { one(&[20_000, 100_000, 1 << 20]) } else { u64::MAX },
                message_bytes_max: None,
            }
        });
        let topics = topics.collect();
        let (has_changer, has_reborn_topic) = (one(&[0, 0, 0, 0, 1]) == 1, one(&[0, 0, 0, 0, 1]) == 1);
        let workload = Workload { groups, topics, has_changer, has_reborn_topic, ..Workload::default() };
        workload.with_later_kinds(Random::from_seed(seed ^ 0x1a7e_12d5))
    }

    /// What was thought of later.
    fn with_later_kinds(mut self, mut random: Random) -> Workload {
        let mut one = |of: &[u64]| of[random.below(of.len() as u64) as usize];
        for group in &mut self.groups {
            group.is_static = one(&[0, 1]) == 1;
            if group.is_static {
                // Who begins anew is to be back in time, and does so often.
                group.session_timeout_ms = group.session_timeout_ms.max(3_000);
                group.leaves_percent = group.leaves_percent.max(5);
            }
        }
        self.has_sizer = one(&[0, 0, 0, 1]) == 1;
        for topic in &mut self.topics {
            let bytes = one(&[0, 5_000, 50_000]);
            topic.message_bytes_max = Some(bytes).filter(|bytes| self.has_sizer && *bytes > 0);
        }
        let key = ["max.connections", "max.connections.per.ip"][one(&[0, 1]) as usize];
        let limit = one(&[40, 60]) as usize;
        self.crowd = Some((key, limit)).filter(|_| one(&[0, 0, 0, 1]) == 1);
        self.has_late_limits = one(&[0, 1]) == 1;
        self.has_prober = one(&[0, 0, 0, 1]) == 1;
        let small: [(&str, &[u64]); 3] = [
            ("ringlog.response.memory.bytes", &[4_200_000, 8_000_000]),
            ("ringlog.frames.memory.bytes", &[4_200_000, 8_000_000]),
            ("ringlog.io.memory.bytes", &[4_200_000]),
        ];
        for (key, values) in small {
            if one(&[0, 0, 0, 1]) == 1 {
                self.memory.push((key, one(values)));
            }
        }
        self
    }

    /// Those that somebody deletes records of, by place in the plan.
    pub fn pruned_topics(&self) -> impl Iterator<Item = usize> {
        self.topics.iter().enumerate().filter(|(_, topic)| topic.is_pruned).map(|(number, _)| number)
    }

    /// Keys of server.properties; those of the plan that stand here, too, give way.
    pub fn properties(&self) -> Vec<(&'static str, String)> {
        let mut properties = self.retention_properties();
        properties.extend(self.crowd.map(|(key, limit)| (key, limit.to_string())));
        properties.extend(self.memory.iter().map(|(key, bytes)| (*key, bytes.to_string())));
        properties
    }

    fn retention_properties(&self) -> Vec<(&'static str, String)> {
        let is_retained = |topic: &TopicMore| topic.retention.bytes.is_some() || topic.retention.ms.is_some();
        match self.topics.iter().any(is_retained) {
            true => {
                vec![
                    ("log.initial.task.delay.ms", "500".to_owned()),
                    ("log.retention.check.interval.ms", "400".to_owned()),
                ]
            }
            false => Vec::new(),
        }
    }
}
