//! What has passed and what was done to it.

use std::collections::BTreeMap;
use std::fmt;

use crate::opening::Role;
use crate::plan::{Fault, Way};

/// What a proxy has seen so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Of control connections, first ones and those that returned.
    pub control: Traffic,
    /// Of data connections.
    pub lanes: Traffic,
    /// Of connections that were no zferry's.
    pub strangers: Traffic,
    /// How often each fault was done, by its name.
    pub faults: BTreeMap<&'static str, u64>,
}

/// What has passed over connections of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// How many there were.
    pub connections: u64,
    /// Bytes that the server was given.
    pub up_bytes: u64,
    /// Bytes that the client was given.
    pub down_bytes: u64,
}

impl Counters {
    /// How many connections there were.
    pub fn connections(&self) -> u64 {
        let kinds = [self.control, self.lanes, self.strangers];
        kinds.iter().map(|traffic| traffic.connections).sum()
    }

    /// How often the fault of this name was done.
    pub fn done(&self, name: &str) -> u64 {
        self.faults.get(name).copied().unwrap_or(0)
    }

    pub(crate) fn count(&mut self, fault: Fault) {
        *self.faults.entry(fault.name()).or_default() += 1;
    }

    pub(crate) fn of(&mut self, role: Role) -> &mut Traffic {
        match role {
            Role::Control | Role::Return => &mut self.control,
            Role::Lane(_) => &mut self.lanes,
            Role::Stranger => &mut self.strangers,
        }
    }
}

impl Traffic {
    pub(crate) fn pass(&mut self, way: Way, bytes: usize) {
        match way {
            Way::Up => self.up_bytes += bytes as u64,
            Way::Down => self.down_bytes += bytes as u64,
            Way::Both => {}
        }
    }
}

/// Words with `=`, on one line: for people and for scripts.
impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds =
            [("control", self.control), ("lanes", self.lanes), ("strangers", self.strangers)];
        for (index, (kind, traffic)) in kinds.into_iter().enumerate() {
            let Traffic { connections, up_bytes, down_bytes } = traffic;
            let gap = if index == 0 { "" } else { " " };
            write!(f, "{gap}{kind}={connections} {kind}-up={up_bytes} {kind}-down={down_bytes}")?;
        }
        self.faults.iter().try_for_each(|(name, count)| write!(f, " {name}={count}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_print_as_words() {
        let mut counters = Counters::default();
        counters.of(Role::Lane(3)).connections += 1;
        counters.of(Role::Lane(3)).pass(Way::Up, 7);
        counters.of(Role::Return).pass(Way::Down, 5);
        counters.count(Fault::Flip(0));
        assert_eq!(
            counters.to_string(),
            "control=0 control-up=0 control-down=5 lanes=1 lanes-up=7 lanes-down=0 \
             strangers=0 strangers-up=0 strangers-down=0 flip=1"
        );
        assert_eq!(
            (counters.done("flip"), counters.done("cut"), counters.connections()),
            (1, 0, 1)
        );
    }
}
