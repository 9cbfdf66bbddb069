//! Plans by chance: the same seed gives the same plan, on every machine. Pure.

use std::time::Duration;

use crate::plan::{Ending, Fault, Plan, Rule, Way, Who};

/// `SplitMix64`: enough for a choice of bytes, and short enough to read.
#[derive(Clone, Debug)]
pub struct Random(u64);

/// What a random plan is made of: connections that are harmed somehow, and cut sooner or later.
#[derive(Clone, Copy, Debug)]
pub struct Storm {
    /// How many data connections are harmed, one after the other.
    pub lanes: u32,
    /// How many control connections are.
    pub controls: u32,
    /// A data connection is harmed before it has carried so many bytes.
    pub lane_bytes: u64,
    /// A control connection is, before it has brought down so many. An `ack` of a window with gaps
    /// is up to 1 KiB: where none comes through, the client rightly waits longer each time.
    pub control_bytes: u64,
    /// Whether faults that take time are among them: holes and refusals of up to half a second.
    pub pauses: bool,
}

/// What a control connection brings down before a transfer is surely under way. It is let alone
/// until then: a session that does not stand yet has nothing to come back to.
const SETTLED_BYTES: u64 = 400;

const PAUSE_MILLIS: u64 = 500;

impl Random {
    /// A series of its own for each seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// The next number below `end`, which is at least 1.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }
}

impl Storm {
    /// The plan that `seed` makes of it.
    pub fn plan(self, seed: u64) -> Plan {
        let mut random = Random::new(seed);
        let mut plan = Plan { seed: Some(seed), rules: Vec::new() };
        for number in 1..=self.lanes {
            let rule = Rule::new(Who::Lanes, 0, self.fault(&mut random)).only(number);
            plan.rules.extend(harm(rule, self.lane_bytes, &mut random));
        }
        for number in 1..=self.controls {
            let first = if number == 1 { SETTLED_BYTES } else { 1 };
            let rule = Rule::new(Who::Control, first, self.fault(&mut random));
            let rule = rule.only(number).on(Way::Down);
            plan.rules.extend(harm(rule, self.control_bytes, &mut random));
        }
        plan
    }

    fn fault(self, random: &mut Random) -> Fault {
        let ending = if random.below(2) == 0 { Ending::Fin } else { Ending::Rst };
        if !self.pauses {
            return Fault::Cut(ending);
        }
        let pause = Duration::from_millis(1 + random.below(PAUSE_MILLIS));
        match random.below(20) {
            0 => Fault::CutAll(ending),
            1 => Fault::HoleBoth(Some(pause)),
            2 => Fault::HoleAll(Some(pause)),
            3 => Fault::Refuse(pause),
            4 => Fault::Flip(u8::try_from(random.below(8)).expect("below 8")),
            5 => Fault::Repeat(usize::try_from(1 + random.below(4096)).expect("below 4097")),
            _ => Fault::Cut(ending),
        }
    }
}

/// The rule up to `bytes` later, and a cut behind it where it is none: for the connection after
/// this one to be harmed, this one must end.
fn harm(rule: Rule, bytes: u64, random: &mut Random) -> impl Iterator<Item = Rule> + use<> {
    let rule = Rule { at: rule.at + random.below(bytes), ..rule };
    let is_cut = matches!(rule.fault, Fault::Cut(_) | Fault::CutAll(_));
    let at = rule.at + random.below(bytes);
    let cut = Rule { at, fault: Fault::Cut(Ending::Rst), ..rule };
    std::iter::once(rule).chain((!is_cut).then_some(cut))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORM: Storm =
        Storm { lanes: 900, controls: 100, lane_bytes: 5000, control_bytes: 400, pauses: true };

    #[test]
    fn the_same_seed_makes_the_same_plan_and_another_one_another() {
        assert_eq!(STORM.plan(7), STORM.plan(7));
        assert_ne!(STORM.plan(7).rules, STORM.plan(8).rules);
        // As published with SplitMix64, so that an old seed is worth something for ever.
        assert_eq!(Random::new(1_234_567).number(), 6_457_827_717_110_365_317);
    }

    #[test]
    fn a_plan_by_chance_cuts_each_connection_once_and_survives_being_printed() {
        let plan = STORM.plan(7);
        assert_eq!(plan.to_string().parse(), Ok(plan.clone()));
        for (who, count) in [(Who::Lanes, 900), (Who::Control, 100)] {
            let cuts = plan.rules.iter().filter(|rule| {
                rule.who == who && matches!(rule.fault, Fault::Cut(_) | Fault::CutAll(_))
            });
            let numbers: Vec<_> = cuts.map(|rule| rule.which.unwrap()).collect();
            assert_eq!(numbers, (1..=count).collect::<Vec<_>>());
        }
        let names: std::collections::BTreeSet<_> =
            plan.rules.iter().map(|rule| rule.fault.name()).collect();
        assert_eq!(names.len(), 7, "{names:?}");
        assert!(plan.rules.iter().all(|rule| rule.at < 2 * 5000));
    }

    #[test]
    fn the_first_control_connection_is_let_alone_until_there_is_something_to_come_back_to() {
        for seed in 0..50 {
            let plan = STORM.plan(seed);
            let first = plan.rules.iter().find(|rule| rule.who == Who::Control).unwrap();
            assert!(first.at >= SETTLED_BYTES && first.way == Way::Down);
        }
    }
}
