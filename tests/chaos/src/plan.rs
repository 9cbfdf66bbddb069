//! What harm is done to which connections, at which bytes. Pure.
//!
//! A plan is a list of rules that prints as one line each ([`crate::text`]). Each connection is
//! dealt the rules that match it when it opens; [`Dealer`] counts connections for that.

use std::time::Duration;

use crate::course::Course;
use crate::opening::Role;

/// All the harm of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What it was made from, where by chance.
    pub seed: Option<u64>,
    /// In any order; of several at one byte, the first is done first.
    pub rules: Vec<Rule>,
}

/// One fault, and where it strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Of these connections...
    pub who: Who,
    /// ...the one of this number, from 1; all of them where `None`.
    pub which: Option<u32>,
    /// In which direction bytes are counted.
    pub way: Way,
    /// After this many bytes of that connection have passed in that direction.
    pub at: u64,
    /// What is done then.
    pub fault: Fault,
}

/// A class of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// All.
    Any,
    /// Control connections, first ones and those that return.
    Control,
    /// Data connections.
    Lanes,
    /// Data connections of one lane, first ones and replacements.
    Lane(u16),
}

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
    /// Each of them, counted by itself.
    Both,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As if both peers had closed it: what passed before is delivered.
    Fin,
    /// At once: what is still on its way may be lost.
    Rst,
}

/// Something that is done to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It ends.
    Cut(Ending),
    /// All connections end.
    CutAll(Ending),
    /// In this direction nothing passes, not even the end, for so long; for ever where `None`.
    Hole(Option<Duration>),
    /// The same in both directions.
    HoleBoth(Option<Duration>),
    /// The same for all connections there are or will be.
    HoleAll(Option<Duration>),
    /// New connections are refused for so long.
    Refuse(Duration),
    /// From here on so many bytes pass in a second.
    Rate(u64),
    /// From here on this connection shares, with all others that do, a line in this direction on
    /// which so many bytes pass in a second.
    RateAll(u64),
    /// From here on each piece of at most 64 KiB waits so long, and the next one behind it.
    Latency(Duration),
    /// What comes from here on passes so long after it came: a long line, as wide as before.
    Delay(Duration),
    /// From here on no more bytes are taken than these that have not passed: the window of a line
    /// with a delay.
    Window(usize),
    /// From here on no packet holds more bytes.
    Segments(usize),
    /// This bit of the next byte, from 0 to 7, is turned over.
    Flip(u8),
    /// The last so many bytes pass once more.
    Repeat(usize),
}

/// Deals rules to connections as they come.
#[derive(Debug)]
pub(crate) struct Dealer {
    /// Each rule with the number of connections that it was about so far.
    rules: Vec<(Rule, u32)>,
}

/// What lies ahead of one connection.
#[derive(Debug)]
pub(crate) struct Courses {
    pub up: Course,
    pub down: Course,
}

impl Plan {
    /// A plan that does no harm.
    pub fn none() -> Plan {
        Plan::default()
    }

    /// One more rule.
    #[must_use]
    pub fn with(mut self, rule: Rule) -> Plan {
        self.rules.push(rule);
        self
    }
}

impl Rule {
    /// `fault` for each of `who` after `at` bytes from the client.
    pub fn new(who: Who, at: u64, fault: Fault) -> Rule {
        Rule { who, which: None, way: Way::Up, at, fault }
    }

    /// The same only for the connection of this number, from 1.
    #[must_use]
    pub fn only(self, which: u32) -> Rule {
        Rule { which: Some(which), ..self }
    }

    /// The same with bytes counted in this direction.
    #[must_use]
    pub fn on(self, way: Way) -> Rule {
        Rule { way, ..self }
    }
}

impl Who {
    /// Whether a connection of this role is one.
    pub(crate) fn includes(self, role: Role) -> bool {
        match self {
            Who::Any => true,
            Who::Control => matches!(role, Role::Control | Role::Return),
            Who::Lanes => matches!(role, Role::Lane(_)),
            Who::Lane(lane) => role == Role::Lane(lane),
        }
    }
}

impl Fault {
    /// What it is called, in plans and in counters.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Cut(_) => "cut",
            Fault::CutAll(_) => "cut-all",
            Fault::Hole(_) => "hole",
            Fault::HoleBoth(_) => "hole-both",
            Fault::HoleAll(_) => "hole-all",
            Fault::Refuse(_) => "refuse",
            Fault::Rate(_) => "rate",
            Fault::RateAll(_) => "rate-all",
            Fault::Latency(_) => "latency",
            Fault::Delay(_) => "delay",
            Fault::Window(_) => "window",
            Fault::Segments(_) => "segments",
            Fault::Flip(_) => "flip",
            Fault::Repeat(_) => "repeat",
        }
    }
}

impl Dealer {
    /// Before the first connection.
    pub fn new(plan: &Plan) -> Dealer {
        Dealer { rules: plan.rules.iter().map(|&rule| (rule, 0)).collect() }
    }

    /// What lies ahead of the next connection.
    pub fn deal(&mut self, role: Role) -> Courses {
        let (mut up, mut down) = (Vec::new(), Vec::new());
        for (rule, seen) in self.rules.iter_mut().filter(|(rule, _)| rule.who.includes(role)) {
            *seen += 1;
            if rule.which.is_some_and(|which| which != *seen) {
                continue;
            }
            if rule.way != Way::Down {
                up.push((rule.at, rule.fault));
            }
            if rule.way != Way::Up {
                down.push((rule.at, rule.fault));
            }
        }
        Courses { up: Course::new(up), down: Course::new(down) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes at which each of these connections would be cut: up, down.
    fn cuts(rule: Rule, roles: &[Role]) -> Vec<(Option<u64>, Option<u64>)> {
        let mut dealer = Dealer::new(&Plan::none().with(rule));
        let first = |course: &Course| (course.clear() < u64::MAX).then(|| course.clear());
        let mut dealt = |&role| {
            let Courses { up, down } = dealer.deal(role);
            (first(&up), first(&down))
        };
        roles.iter().map(&mut dealt).collect()
    }

    #[test]
    fn a_rule_is_dealt_to_those_that_it_is_about() {
        let roles = [Role::Control, Role::Lane(0), Role::Lane(1), Role::Return, Role::Stranger];
        for (who, expected) in [
            (Who::Any, [true, true, true, true, true]),
            (Who::Control, [true, false, false, true, false]),
            (Who::Lanes, [false, true, true, false, false]),
            (Who::Lane(1), [false, false, true, false, false]),
        ] {
            let dealt = cuts(Rule::new(who, 7, Fault::Cut(Ending::Fin)), &roles);
            let hit: Vec<_> = dealt.iter().map(|&(up, _)| up == Some(7)).collect();
            assert_eq!(hit, expected, "{who:?}");
        }
    }

    #[test]
    fn numbers_count_only_those_that_the_rule_is_about() {
        let roles = [Role::Lane(0), Role::Control, Role::Lane(1), Role::Lane(0), Role::Lane(0)];
        let rule = Rule::new(Who::Lane(0), 7, Fault::Cut(Ending::Fin)).only(2);
        let hit: Vec<_> = cuts(rule, &roles).iter().map(|&(up, _)| up.is_some()).collect();
        assert_eq!(hit, [false, false, false, true, false]);
    }

    #[test]
    fn each_way_has_its_own_course() {
        let rule = Rule::new(Who::Any, 7, Fault::Cut(Ending::Fin));
        for (way, expected) in [
            (Way::Up, (Some(7), None)),
            (Way::Down, (None, Some(7))),
            (Way::Both, (Some(7), Some(7))),
        ] {
            assert_eq!(cuts(rule.on(way), &[Role::Control]), [expected]);
        }
    }
}
