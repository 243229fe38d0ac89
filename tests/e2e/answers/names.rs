//! What two nodes in the same state call differently: ids of topics, members of groups, fetch sessions.
//!
//! Requests and answers are compared under common names, which each side translates from and to its own.

use std::collections::BTreeMap;

use super::wire::Value;

/// The length of a UUID as text.
const UUID_LEN: usize = 36;
/// What every id is called that isn't a topic's.
const SOME_ID: [u8; 16] = [0xdd; 16];

/// One side's names.
#[derive(Debug, Default)]
pub struct Names {
    /// Own id and common id.
    ids: Vec<([u8; 16], [u8; 16])>,
    /// How many ids each topic's name has had.
    lives: BTreeMap<String, u8>,
    /// Own ids of members, in the order in which they came.
    members: Vec<String>,
}

/// The common id of a topic: each of its lives has another.
pub fn topic_id(name: &str, life: u8) -> [u8; 16] {
    let mut id = [life; 16];
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in name.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }
    id[..8].copy_from_slice(&hash.to_be_bytes());
    id
}

/// What comes before the UUID in a member's id.
fn member_prefix(text: &str) -> Option<&str> {
    let at = text.len().checked_sub(UUID_LEN)?;
    let (prefix, uuid) = text.split_at_checked(at)?;
    let is_uuid = uuid.bytes().enumerate().all(|(index, byte)| match index {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    prefix.strip_suffix('-').filter(|_| is_uuid)
}

impl Names {
    /// An answer, under common names.
    pub fn make_common(&mut self, answer: &mut Value) {
        answer.visit("", &mut |_, value| self.learn(value));
        answer.visit("", &mut |name, value| match value {
            Value::Id(id) if *id != [0; 16] => {
                let known = self.ids.iter().find(|(own, _)| own == id);
                *id = known.map_or(SOME_ID, |(_, common)| *common);
            }
            Value::Text(text) => {
                if let Some(prefix) = member_prefix(text) {
                    let index = index_of(&mut self.members, text);
                    *text = format!("{prefix}-member-{index}");
                }
            }
            Value::Int(number) if name == "SessionId" && *number != 0 => {
                // Nobody goes on with one.
                *number = 1;
            }
            _ => {}
        });
    }

    /// Topics' ids are told beside their names.
    fn learn(&mut self, value: &Value) {
        let name = ["Name", "TopicName", "Topic"].into_iter().find_map(|name| value.get(name)?.text());
        let (Some(name), Some(Value::Id(id))) = (name, value.get("TopicId")) else { return };
        // Answers with errors repeat what was asked.
        let is_told = value.get("ErrorCode").and_then(Value::int).is_none_or(|code| code == 0);
        if is_told && *id != [0; 16] && !name.is_empty() && !self.ids.iter().any(|(own, _)| own == id) {
            let life = self.lives.entry(name.to_owned()).or_default();
            *life += 1;
            self.ids.push((*id, topic_id(name, *life)));
        }
    }

    /// A request, under own names.
    pub fn make_own(&self, request: &mut Value) {
        request.visit("", &mut |_, value| match value {
            Value::Id(id) => {
                if let Some((own, _)) = self.ids.iter().find(|(_, common)| common == id) {
                    *id = *own;
                }
            }
            Value::Text(text) => {
                let number = text.rsplit_once("-member-").and_then(|(_, number)| number.parse::<usize>().ok());
                if let Some(own) = number.and_then(|number| self.members.get(number)) {
                    text.clone_from(own);
                }
            }
            _ => {}
        });
    }
}

/// The place of this item, which is added if it isn't there.
fn index_of<T: PartialEq + Clone>(known: &mut Vec<T>, item: &T) -> usize {
    known.iter().position(|it| it == item).unwrap_or_else(|| {
        known.push(item.clone());
        known.len() - 1
    })
}
